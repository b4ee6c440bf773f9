from __future__ import annotations

import json

from tests.commands.support import lines, run


def test_check_is_content_with_the_defaults():
    result = run("config", "check")
    assert (result.exit_code, result.stdout) == (0, "the configuration is valid\n")
    assert lines(run("config", "check", "--json")) == [{"ok": True, "errors": [], "warnings": []}]


def test_check_tells_all_errors_as_text_or_json():
    wrong = {"KAFKA__PARTITIONS": "0", "LOG__LEVL": "info", "PORT": "1"}
    result = run("config", "check", **wrong)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 2
    result = run("config", "check", "--json", **wrong)
    assert result.exit_code == 2
    value = json.loads(result.stdout)
    assert value["ok"] is False
    assert value["errors"][0] == {
        "where": "environment",
        "key": "BULLMQ_STREAMS_LOG__LEVL",
        "message": "unknown key",
        "hint": "did you mean BULLMQ_STREAMS_LOG__LEVEL?",
    }


def test_check_warns():
    result = run("config", "check", PORT="1")
    assert result.exit_code == 0
    assert "warning: environment: BULLMQ_STREAMS_PORT: is no setting and is ignored" in result.stderr
    assert len(lines(run("config", "check", "--json", PORT="1"))[0]["warnings"]) == 1


SECRETS = {
    "SOURCES__DEFAULT__URL": "redis://bridge:open%40sesame@h:1/0?password=query-secret",
    "KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA__SASL_MECHANISM": "PLAIN",
    "KAFKA__SASL_USERNAME": "u",
    "KAFKA__SASL_PASSWORD": "scheme://hunter2",
}


def test_show_has_values_with_their_origin_and_no_secret():
    for arguments in (["config", "show"], ["config", "show", "--json"]):
        output = run(*arguments, **SECRETS).output
        assert "sesame" not in output
        assert "hunter2" not in output
        assert "query-secret" not in output
    shown = lines(run("config", "show", "--json", **SECRETS))[0]
    assert shown["sources.default.url"] == {
        "value": "redis://bridge:***@h:1/0?password=***",
        "origin": "environment BULLMQ_STREAMS_SOURCES__DEFAULT__URL",
    }
    assert shown["kafka.sasl_password"]["value"] == "***"
    assert shown["kafka.partitions"] == {"value": 8, "origin": "default"}
    assert shown["sources.default.queues"]["value"] == ["*"]


def test_show_as_text():
    text = run("config", "show", KAFKA__PARTITIONS="3").stdout
    assert "# environment BULLMQ_STREAMS_KAFKA__PARTITIONS" in text
    assert "unset" in text
