"""A Redis as in production: TLS only, a password, ACL users. From the system, as no wheel of a server has TLS."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from streams.local.process import Process, ports
from tests.needs import missing


@dataclass(frozen=True)
class SecureRedis:
    """`admin_password` is that of the user `default`, who may do all and make users (`client().acl_setuser`)."""

    port: int
    ca_file: Path
    admin_password: str

    def url(self, user: str = "default", password: str | None = None) -> str:
        """`rediss://…`, trusting the certificate authority of this server."""
        login = f"{user}:{self.admin_password if password is None else password}"
        return f"rediss://{login}@127.0.0.1:{self.port}/0?ssl_ca_certs={self.ca_file}"

    def client(self) -> redis.Redis:
        """A blocking client of the administrator."""
        return redis.Redis.from_url(self.url(), decode_responses=True)


@contextmanager
def running(folder: Path) -> Iterator[SecureRedis]:
    """The server, for as long as the block lasts."""
    server, openssl = shutil.which("redis-server"), shutil.which("openssl")
    if server is None or openssl is None:
        missing("redis-server or openssl is not on the PATH", "install them (Debian: redis-server, openssl)")
    certificates(openssl, folder)
    port = ports(folder, {"redis": 0})["redis"]
    secure = SecureRedis(port, folder / "ca.crt", "correct-horse")
    process = Process("redis", folder)
    process.start([server, *_options(folder, port), "--requirepass", secure.admin_password])
    try:
        _wait(process, secure)
        yield secure
    finally:
        process.stop()


def _options(folder: Path, port: int) -> list[str]:
    tls = {"cert": "server.crt", "key": "server.key", "ca-cert": "ca.crt"}
    files = [part for name, file in tls.items() for part in (f"--tls-{name}-file", str(folder / file))]
    listen = ["--bind", "127.0.0.1", "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
    return [*listen, *files, "--save", "", "--maxmemory-policy", "noeviction"]


def _wait(process: Process, secure: SecureRedis) -> None:
    with secure.client() as client:
        for _ in range(200):
            process.require_alive()
            try:
                client.ping()
            except redis.RedisError:
                time.sleep(0.05)
            else:
                return
    raise TimeoutError(process.tail())


def certificates(openssl: str, folder: Path, names: str = "IP:127.0.0.1,DNS:localhost") -> None:
    """An authority, and a certificate of `names` signed by it, with the extensions that a strict client wants."""

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "rsa:2048", "-nodes")
    usage = "keyUsage=critical,keyCertSign,cRLSign"
    run("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test-ca", "-addext", usage)
    run("req", *new_key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "extensions").write_text(
        f"subjectAltName={names}\nbasicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    signer = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions")
    run("x509", "-req", "-in", "server.csr", "-out", "server.crt", *signer)
