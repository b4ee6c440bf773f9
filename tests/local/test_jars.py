from __future__ import annotations

import os
import sys

import pytest

from streams.local import jars
from streams.local.errors import LocalStackError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    return tmp_path / "bullmq-streams"


class Central:
    """Maven Central with two jars; `failures` are raised first, one a call."""

    def __init__(self, monkeypatch, *failures):
        self.failures = list(failures)
        self.bundles = []
        self.content = b"jar"
        monkeypatch.setattr(jars, "_resolve", self)

    def __call__(self, folder):
        self.bundles.append(os.environ.get("REQUESTS_CA_BUNDLE"))
        if self.failures:
            raise self.failures.pop(0)
        folder.mkdir(parents=True)
        found = [folder / "b.jar", folder / "a.jar"]
        for jar in found:
            jar.write_bytes(self.content)
        return found


@pytest.fixture
def pinned(monkeypatch, tmp_path):
    for name in ("a.jar", "b.jar"):
        (tmp_path / name).write_bytes(b"jar")
    monkeypatch.setattr(jars, "JARS_SHA256", jars.digest([tmp_path / "a.jar", tmp_path / "b.jar"]))


def fetch():
    said: list[str] = []
    return jars.class_path(said.append), said


@pytest.mark.usefixtures("pinned")
class TestFetching:
    def test_once_then_never_again(self, cache, monkeypatch):
        central = Central(monkeypatch)
        path, said = fetch()
        assert path == f"{cache}/m2/b.jar{os.pathsep}{cache}/m2/a.jar"
        assert "42 MB" in said[0]
        assert fetch() == (path, [])
        assert len(central.bundles) == 1

    @pytest.mark.parametrize("harm", [lambda jar: jar.write_bytes(b"x"), lambda jar: jar.unlink()])
    def test_again_where_a_jar_is_damaged_or_gone(self, cache, monkeypatch, harm):
        Central(monkeypatch)
        path, _ = fetch()
        harm(cache / "m2" / "a.jar")
        assert fetch()[0] == path
        assert (cache / "m2" / "a.jar").read_bytes() == b"jar"

    def test_leftovers_of_an_interrupted_fetch_are_not_taken_for_whole(self, cache, monkeypatch):
        (cache / "m2").mkdir(parents=True)
        (cache / "m2" / "a.jar").write_bytes(b"ha")
        Central(monkeypatch)
        fetch()

    @pytest.mark.usefixtures("cache")
    def test_other_jars_than_the_pinned_ones_are_refused(self, monkeypatch):
        Central(monkeypatch).content = b"evil"
        with pytest.raises(LocalStackError, match="other jars than those of Kafka"):
            fetch()

    @pytest.mark.usefixtures("cache")
    @pytest.mark.parametrize("error", [ConnectionError("no route"), RuntimeError("not found")])
    def test_without_a_network_one_line_says_so(self, monkeypatch, error):
        Central(monkeypatch, error)
        with pytest.raises(LocalStackError, match=r"^cannot fetch Kafka .*check the network and retry$"):
            fetch()


@pytest.mark.usefixtures("pinned", "cache")
class TestAProxyWithAnAuthorityOfItsOwn:
    UNTRUSTED = OSError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")

    @pytest.fixture(autouse=True)
    def system_bundle(self, monkeypatch, tmp_path):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
        (tmp_path / "system.pem").touch()
        return str(tmp_path / "system.pem")

    def test_what_the_system_trusts_is_tried_next(self, monkeypatch, system_bundle):
        central = Central(monkeypatch, self.UNTRUSTED)
        fetch()
        assert central.bundles == [None, system_bundle]
        assert "REQUESTS_CA_BUNDLE" not in os.environ

    def test_not_trusted_by_the_system_either(self, monkeypatch):
        Central(monkeypatch, self.UNTRUSTED, self.UNTRUSTED)
        with pytest.raises(LocalStackError, match="set REQUESTS_CA_BUNDLE"):
            fetch()
        assert "REQUESTS_CA_BUNDLE" not in os.environ

    def test_a_bundle_that_the_user_named_is_the_only_one(self, monkeypatch):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "mine.pem")
        central = Central(monkeypatch, self.UNTRUSTED)
        with pytest.raises(LocalStackError, match="set REQUESTS_CA_BUNDLE"):
            fetch()
        assert central.bundles == ["mine.pem"]


@pytest.mark.usefixtures("cache")
def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    with pytest.raises(LocalStackError, match=r"pip install 'bullmq-streams\[local\]'"):
        fetch()


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert jars._cache() == tmp_path / ".cache" / "bullmq-streams"
