"""The process behind a URL is found, or it is said why not and what to do."""

import pytest
from process_table import FakeProcesses

from melodi.inference.discovery import Presence, find, trees

URL = "http://127.0.0.1:8000"


@pytest.fixture
def table() -> FakeProcesses:
    """A shell that started a server with two workers, which listens."""
    table = FakeProcesses()
    table.start(5, "bash")
    table.start(10, "vllm", parent=5)
    table.start(11, "EngineCore", parent=10)
    table.start(12, "Worker", parent=11)
    table.ports["127.0.0.1", 8000] = {10}
    return table


def test_the_process_that_listens_is_found_with_all_that_descend_from_it(
    table: FakeProcesses,
) -> None:
    """vLLM's engine and workers, and not the shell that started it."""
    found = find(URL, "auto", table)
    assert (found.presence, found.roots, found.how) == (Presence.FOUND, (10,), "port")
    assert trees(found.roots, table.parents()) == {10, 11, 12}


def test_of_processes_that_share_a_port_the_one_that_opened_it_is_found(
    table: FakeProcesses,
) -> None:
    """API workers inherit the socket; the engines are children of whoever opened it."""
    table.start(13, "ApiServer", parent=10)
    table.start(14, "ApiServer", parent=10)
    table.ports["127.0.0.1", 8000] = {13, 10, 14}
    assert find(URL, "auto", table).roots == (10,)
    # Only one of them may be told.
    listening = table.listening

    def only_a_worker(host: str, port: int) -> object:
        return type(listening(host, port))(frozenset({13}))

    table.listening = only_a_worker  # type: ignore[method-assign,assignment]
    assert find(URL, "auto", table).roots == (10,)


def test_nobody_listening_is_absent(table: FakeProcesses) -> None:
    """Nothing runs, so nothing is used."""
    found = find("http://127.0.0.1:9", "auto", table)
    assert found.presence is Presence.ABSENT
    assert found.reason == "nobody listens on port 9"
    assert found.remedy == "start it or mend its url"


def test_a_listener_of_another_user_is_hidden_and_not_absent(table: FakeProcesses) -> None:
    """The remedy is one that needs no right."""
    table.hidden.add(9)
    found = find("http://127.0.0.1:9", "auto", table)
    assert found.presence is Presence.HIDDEN
    assert 'process = "cgroup:/system.slice/' in str(found.remedy)


def test_the_server_of_a_container_is_found_behind_its_port(table: FakeProcesses) -> None:
    """docker-proxy listens and says for whom: the right one of two containers."""
    table.start(20, "docker-proxy")
    table.commands[20] = ["/usr/bin/docker-proxy", "-proto", "tcp", "-host-port", "9000"]
    table.commands[20] += ["-container-ip", "172.17.0.3", "-container-port", "8000"]
    table.ports["127.0.0.1", 9000] = {20}
    table.start(30, "python")
    table.start(40, "python")
    table.inside["172.17.0.2", 8000] = {30}
    table.inside["172.17.0.3", 8000] = {40}
    found = find("http://127.0.0.1:9000", "auto", table)
    assert (found.presence, found.roots, found.how) == (Presence.FOUND, (40,), "container")


def test_the_address_of_a_container_leads_to_its_server(table: FakeProcesses) -> None:
    """As on a network of containers, where each has an address of its own."""
    table.start(30, "python")
    table.inside["172.17.0.2", 8000] = {30}
    assert find("http://172.17.0.2:8000", "auto", table).roots == (30,)


def test_a_port_that_the_kernel_forwards_leads_to_the_only_server_it_can_mean(
    table: FakeProcesses,
) -> None:
    """With two of them it is hidden, and the remedy is to name the process."""
    table.forwarded.add(9000)
    table.start(30, "python")
    table.inside["172.17.0.2", 9000] = {30}
    assert find("http://127.0.0.1:9000", "auto", table).roots == (30,)
    table.inside["172.17.0.3", 9000] = {table.start(40)}
    found = find("http://127.0.0.1:9000", "auto", table)
    assert found.presence is Presence.HIDDEN
    assert 'process = "cgroup:/PATH"' in str(found.remedy)


@pytest.mark.parametrize("name", ["docker-proxy", "rootlessport"])
def test_a_container_that_cannot_be_seen_is_hidden(table: FakeProcesses, name: str) -> None:
    """What listens for it is never taken for the server."""
    table.ports["127.0.0.1", 9000] = {table.start(20, name)}
    found = find("http://127.0.0.1:9000", "auto", table)
    assert (found.presence, found.roots) == (Presence.HIDDEN, ())


def test_a_forwarder_is_never_taken_for_the_server(table: FakeProcesses) -> None:
    """An ssh tunnel uses next to nothing here; its name stands in the reason."""
    table.ports["127.0.0.1", 9000] = {table.start(20, "ssh")}
    found = find("http://127.0.0.1:9000", "auto", table)
    assert found.presence is Presence.HIDDEN
    assert "ssh (pid 20) listens" in str(found.reason)


def test_a_server_of_another_machine_is_hidden_with_what_to_do(table: FakeProcesses) -> None:
    """It may still be here, so its energy is not denied either."""
    found = find("https://gpu.example", "auto", table)
    assert found.presence is Presence.HIDDEN
    assert "devices = []" in str(found.remedy)


def test_a_named_pid_is_taken_or_missed(table: FakeProcesses) -> None:
    """Whoever listens."""
    assert find(URL, 11, table).roots == (11,)
    missed = find(URL, 99, table)
    assert (missed.presence, missed.reason) == (Presence.ABSENT, "there is no process 99")


def test_a_named_cgroup_is_taken_missed_or_empty(table: FakeProcesses) -> None:
    """A service that is stopped has an empty cgroup or none."""
    table.cgroups["/vllm.service"] = {10, 11, 12}
    table.cgroups["/empty"] = set()
    assert find(URL, "cgroup:/vllm.service", table).cgroup == "/vllm.service"
    assert find(URL, "cgroup:/empty", table).presence is Presence.ABSENT
    missed = find(URL, "cgroup:/none", table)
    assert missed.presence is Presence.HIDDEN
    assert "/proc/PID/cgroup" in str(missed.remedy)
