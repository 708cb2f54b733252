"""What callers write for a server's address, and what they are told where it is none."""

import pytest

from lockstep.clients.address import is_loopback, target_of


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("localhost:9", "localhost:9"),
        ("localhost", "localhost:8001"),
        ("127.0.0.1", "127.0.0.1:8001"),
        ("models.example.org:65535", "models.example.org:65535"),
        ("[::1]:9", "[::1]:9"),
        ("[::1]", "[::1]:8001"),
        ("unix:/run/lockstep.sock", "unix:/run/lockstep.sock"),
        ("dns:///models", "dns:///models:8001"),
        ("dns:models:9", "dns:models:9"),
        ("ipv4:10.0.0.1:9,10.0.0.2:9", "ipv4:10.0.0.1:9,10.0.0.2:9"),
    ],
)
def test_an_address_without_a_port_is_of_port_8001(written: str, target: str) -> None:
    assert target_of(written) == target


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("localhost:99999", "invalid port 99999: use 1 to 65535"),
        ("localhost:0", "invalid port 0: use 1 to 65535"),
        ("localhost:", "invalid port : use 1 to 65535"),
        ("localhost:http", "invalid port http: use"),
        (":99999", "invalid port 99999"),
        (":8001", "the host is missing: write 127.0.0.1:8001"),
        ("http://localhost:8001", "write localhost:8001, without http://"),
        ("https://models.example.org/path", "write models.example.org, without https://"),
        ("grpc://localhost", "write localhost, without grpc://"),
        ("::1", r"write an IPv6 address in brackets: \[::1\]:8001"),
        ("[::x]:9", "'::x' is not an IPv6 address"),
        ("[::1", r"write an IPv6 address as \[::1\]:8001"),
        ("two words:9", "'two words' is not a host name"),
        ("localhost/path", "'localhost/path' is not a host name"),
    ],
)
def test_what_is_no_address_is_said_with_what_to_write(written: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        target_of(written)
    assert repr(written) in str(error.value)


@pytest.mark.parametrize("target", ["localhost:1", "127.0.0.1:1", "[::1]:1", "unix:/run/x.sock", "dns:///localhost:1"])
def test_this_machine_is_known_by_its_names(target: str) -> None:
    assert is_loopback(target)
    assert not is_loopback("models.example.org:8001")
