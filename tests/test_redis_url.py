from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from redis.asyncio import ConnectionPool

from streams.settings import load, redis_url
from streams.settings.redis_url import check_url
from tests.test_settings import ENV, errors

KNOWN = (
    "username, password, db, client_name, socket_connect_timeout, socket_keepalive, ssl_ca_certs, ssl_ca_path, "
    "ssl_ca_data, ssl_certfile, ssl_keyfile, ssl_password, ssl_check_hostname, ssl_cert_reqs, ssl_min_version, "
    "ssl_ciphers"
)
ENCODE = "is no URL: encode special characters of the password (@ as %40, / as %2F, # as %23, ? as %3F)"
SPACE = "has a space or a control character: encode it (a space as %20)"
PORT = "has a port that is not between 1 and 65535"
HOST = "names a host that can be none (one host: several are not supported)"
DB = "names a database that is not between 0 and 2147483647"
WRONG_URLS = [
    ("redis://h?family=0", f"has the unknown parameter family; those known are {KNOWN}"),
    ("redis://h?pasword=x", "has the unknown parameter pasword; did you mean password?"),
    ("rediss://h?ssl_ca_cert=x", "has the unknown parameter ssl_ca_cert; did you mean ssl_ca_certs?"),
    ("redis://h?Db=1", "has the unknown parameter Db; those known are " + KNOWN),
    ("redis://h?protocol=2", "has the parameter protocol, which is set by the bridge itself: take it out"),
    (
        "redis://h?decode_responses=0",
        "has the parameter decode_responses, which is set by the bridge itself: take it out",
    ),
    (
        "redis://h?encoding_errors=x",
        "has the parameter encoding_errors, which is set by the bridge itself: take it out",
    ),
    ("redis://h?socket_timeout=1", "has the parameter socket_timeout, which is set by the bridge itself: take it out"),
    ("redis://h?max_connections=1", "has the parameter max_connections, which has no effect here: take it out"),
    ("redis://h?timeout=1", "has the parameter timeout, which has no effect here: take it out"),
    (
        "redis://h?path=/tmp/x",
        "has the parameter path, which would be a Unix socket, which is not supported: take it out",
    ),
    (
        "redis://h?famly=1&protocol=3",
        (
            f"has the unknown parameter famly; those known are {KNOWN}; "
            "has the parameter protocol, which is set by the bridge itself: take it out"
        ),
    ),
    ("redis://h?db=x", "has the parameter db, which must be a number between 0 and 2147483647"),
    ("redis://h?db=-1", "has the parameter db, which must be a number between 0 and 2147483647"),
    ("redis://h?db=", "has the parameter db, which must be a number between 0 and 2147483647"),
    ("redis://h?db=1&db=2", "has the parameter db twice"),
    ("redis://h/1?db=2", "gives the database twice: after the host and among the parameters"),
    *(
        (
            f"redis://h?socket_connect_timeout={value}",
            "has the parameter socket_connect_timeout, which must be seconds, more than 0 and at most 10",
        )
        for value in ("0", "-1", "nan", "inf", "soon", "11")
    ),
    ("redis://h?socket_keepalive=maybe", "has the parameter socket_keepalive, which must be true or false"),
    (
        "redis://h?client_name=a%20b",
        "has the parameter client_name, which must be letters, digits and signs without spaces",
    ),
    ("redis://h?ssl_ca_certs=/dev/null", "has the parameter ssl_ca_certs, which needs rediss://"),
    (
        "rediss://h?ssl_cert_reqs=never",
        "has the parameter ssl_cert_reqs, which must be one of required, optional, none",
    ),
    ("rediss://h?ssl_min_version=5", "has the parameter ssl_min_version, which must be 771 (TLS 1.2) or 772 (TLS 1.3)"),
    ("rediss://h?ssl_ciphers=none", "has the parameter ssl_ciphers, which must be ciphers as OpenSSL names them"),
    ("rediss://h?ssl_keyfile=/dev/null", "has the parameter ssl_keyfile, which needs ssl_certfile"),
    ("rediss://h?ssl_ca_path=/dev/null", "has the parameter ssl_ca_path, which must be a folder"),
    (
        "rediss://h?ssl_ca_certs=/no/such",
        "has certificates of authorities that cannot be loaded: No such file or directory",
    ),
    (
        "rediss://h?ssl_ca_certs=/dev/null",
        "has certificates of authorities that cannot be loaded: no certificate in it",
    ),
    (
        "rediss://h?ssl_certfile=/dev/null",
        (
            "has a client certificate that cannot be loaded: "
            "no certificate or no private key in it, or the password of the key is wrong"
        ),
    ),
    ("redis://h?hunter2", "has parameters that are not name=value, joined by &"),
    ("redis://h?a%00b=1", f"has the unknown parameter ***; those known are {KNOWN}"),
    ("redis://u:12?cret@host/0", ENCODE),
    ("redis://u:12/cret@host/0", ENCODE),
    ("redis://u:12#cret@host/0", ENCODE),
    ("redis://[::zz]/0", ENCODE),
    ("redis://h:0", PORT),
    ("redis://h:65536", PORT),
    ("redis://a:1,b:2", ENCODE),
    ("redis://a,b", HOST),
    ("redis://a..b", HOST),
    ("redis://%ff", HOST),
    ("redis://h/2147483648", DB),
    ("redis://h/0/1", "must end with the number of a database, such as /0, or with the host"),
    ("redis://h/%30", "must end with the number of a database, such as /0, or with the host"),
    ("redis://h/0#x", "must end with the number of a database, such as /0, or with the host"),
    ("redis://h /0", SPACE),
    ("redis://h\n/0", SPACE),
    ("unix:///tmp/redis.sock", "must begin with redis:// or rediss://"),
    ("", "must begin with redis:// or rediss://"),
]


@pytest.mark.parametrize(("url", "message"), WRONG_URLS)
def test_a_url_that_redis_py_would_choke_on_is_named(url, message):
    assert errors([], {f"{ENV}SOURCES__DEFAULT__URL": url}) == [f"environment: {ENV}SOURCES__DEFAULT__URL: {message}"]


RIGHT_URLS = [
    "redis://h",
    "redis://h/",
    "redis://h:1/15",
    "redis://u:p%40%2F@h",
    "redis://:p@[::1]:6379/0",
    "redis://redis_1.internal-net/0",
    "redis://h?db=3&client_name=bridge&socket_connect_timeout=2.5&socket_keepalive=true",
    "redis://h?username=u&password=p",
    "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false&ssl_min_version=772&ssl_ca_path=/",
    "rediss://h?ssl_ciphers=HIGH",
]


@pytest.mark.parametrize("url", RIGHT_URLS)
async def test_a_url_that_is_taken_makes_a_connection(url):
    settings = load([], {f"{ENV}SOURCES__DEFAULT__URL": url})
    pool = ConnectionPool.from_url(settings.sources["default"].url.get_secret_value())
    assert pool.make_connection()


PARAMETER = st.tuples(
    st.one_of(
        st.sampled_from([*redis_url.TAKEN, *redis_url.REFUSED]), st.text(string.ascii_lowercase + "_", max_size=9)
    ),
    st.text(string.printable + "é\ud800", max_size=12),
)


@given(st.sampled_from(["redis", "rediss", "unix", "http"]), st.lists(PARAMETER, max_size=3), st.booleans())
def test_whatever_the_parameters_the_url_is_refused_or_makes_a_connection(scheme, parameters, encoded):
    quoted = [(name, quote(value, errors="replace") if encoded else value) for name, value in parameters]
    url = f"{scheme}://h/0" + "?" * bool(quoted) + "&".join(f"{name}={value}" for name, value in quoted)
    try:
        check_url(SecretStr(url))
    except ValueError:
        return
    assert ConnectionPool.from_url(url).make_connection()
