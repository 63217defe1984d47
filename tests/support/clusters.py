"""Real clusters of Valkey servers, and servers that Sentinel watches."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from coredis import RedisCluster

from .ports import free_port
from .valkey import LIMIT, LOG_USER, PREFIX, SERVER, USER

SLOTS = 16384
# How soon servers notice that one of them is dead.
TIMEOUT = 500

# The rights of the user whom the registries of the tests are, as the documentation has them.
CLUSTER_RIGHTS = (
    f"~{{{PREFIX}:* &{{{PREFIX}:* "
    "+mget +set +spublish +ssubscribe +sunsubscribe +ping "
    "+pubsub|shardchannels +cluster|slots +eval +del"
)
# Those of the user whom the logs are.
CLUSTER_LOG_RIGHTS = (
    f"~{PREFIX}:* &{PREFIX}:* +spublish +ssubscribe +sunsubscribe +ping +cluster|slots "
    "+eval +evalsha +time "
    "+hset +hget +hmget +hgetall +hdel +xadd +xrange +xtrim +pexpire +pttl +del"
)


class Node:
    """A server in a process of its own."""

    def __init__(self, stack: ExitStack, config: list[str], *arguments: str) -> None:
        self.port = free_port()
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        file = Path(folder, "valkey.conf")
        usual = [f"port {self.port}", f"dir {folder}", "bind 127.0.0.1", 'save ""']
        file.write_text("\n".join([*usual, *config, ""]))
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [SERVER, file, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(self.kill)
        wait_until(lambda: "PONG" in self.ask("PING"))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, command: str) -> str:
        """Send a command, and return what comes of the answer at once."""
        try:
            with closing(socket.create_connection(("127.0.0.1", self.port), 1)) as connection:
                connection.sendall(f"{command}\r\n".encode())
                return connection.recv(65536).decode()
        except OSError as exc:
            return str(exc)

    def tell(self, command: str) -> None:
        """Send a command that must succeed."""
        answer = self.ask(command)
        assert answer.startswith("+OK"), f"{command}: {answer}"

    @property
    def id(self) -> str:
        return self.ask("CLUSTER MYID").split()[1]


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "the servers take too long"
        time.sleep(0.02)


class Cluster:
    """Some primaries, and replicas of the first."""

    def __init__(self, stack: ExitStack, primaries: int, replicas: int) -> None:
        users = [
            f"user {user.partition(':')[0]} on >{user.partition(':')[2]} {rights}"
            for user, rights in ((USER, CLUSTER_RIGHTS), (LOG_USER, CLUSTER_LOG_RIGHTS))
        ]
        config = [
            "cluster-enabled yes",
            f"cluster-node-timeout {TIMEOUT}",
            "cluster-replica-validity-factor 0",
            "repl-diskless-sync-delay 0",
            *users,
        ]
        self.nodes = [Node(stack, config) for _ in range(primaries + replicas)]
        self.primaries, self.replicas = self.nodes[:primaries], self.nodes[primaries:]
        for number, node in enumerate(self.primaries):
            first, last = number * SLOTS // primaries, (number + 1) * SLOTS // primaries - 1
            node.tell(f"CLUSTER ADDSLOTSRANGE {first} {last}")
            node.tell(f"CLUSTER SET-CONFIG-EPOCH {number + 1}")
        for node in self.nodes[1:]:
            node.tell(f"CLUSTER MEET 127.0.0.1 {self.nodes[0].port}")
        self.wait_ok()
        for node in self.replicas:
            wait_until(lambda node=node: self.primaries[0].id in node.ask("CLUSTER NODES"))
            node.tell(f"CLUSTER REPLICATE {self.primaries[0].id}")
            wait_until(lambda node=node: "master_link_status:up" in node.ask("INFO replication"))

    def wait_ok(self) -> None:
        """Wait until all nodes know each other, and all slots are served."""
        for node in self.nodes:
            wait_until(lambda node=node: "cluster_state:ok" in node.ask("CLUSTER INFO"))
            known = f"cluster_known_nodes:{len(self.nodes)}"
            wait_until(lambda node=node, known=known: known in node.ask("CLUSTER INFO"))

    def wait_fail_over(self) -> None:
        """Wait until a replica has taken the place of the first primary, which is dead."""
        wait_until(lambda: "role:master" in self.replicas[0].ask("INFO replication"))

    def client(self) -> RedisCluster[bytes]:
        """Make a client that has the least rights."""
        return self._client(*USER.split(":"))

    def keeper(self) -> RedisCluster[bytes]:
        """Make a client that has the least rights for a log."""
        return self._client(*LOG_USER.split(":"))

    def admin(self) -> RedisCluster[bytes]:
        return self._client(None, None)

    def _client(self, name: str | None, password: str | None) -> RedisCluster[bytes]:
        # The last one, which no test kills.
        port = self.primaries[-1].port
        return RedisCluster(
            "127.0.0.1",
            port,
            username=name,
            password=password,
            connect_timeout=1,
            skip_full_coverage_check=True,
        )

    def move(self, slot: int, source: Node, target: Node) -> None:
        """Move a slot from one node to another, without what is in it."""
        for node in target, source, *self.nodes:
            if node in self.primaries:
                source.tell("FLUSHALL")
                node.tell(f"CLUSTER SETSLOT {slot} NODE {target.id}")


@contextmanager
def cluster_of(primaries: int, replicas: int = 0) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(stack, primaries, replicas)


class Watched:
    """A primary, its replica, and a Sentinel that puts the one in the place of the other."""

    name = "main"

    def __init__(self, stack: ExitStack) -> None:
        config = ["repl-diskless-sync-delay 0"]
        self.primary = Node(stack, config)
        self.replica = Node(stack, [*config, f"replicaof 127.0.0.1 {self.primary.port}"])
        wait_until(lambda: "master_link_status:up" in self.replica.ask("INFO replication"))
        self.sentinel = Node(
            stack,
            [
                f"sentinel monitor {self.name} 127.0.0.1 {self.primary.port} 1",
                f"sentinel down-after-milliseconds {self.name} {TIMEOUT}",
                f"sentinel failover-timeout {self.name} {TIMEOUT}",
            ],
            "--sentinel",
        )
        wait_until(lambda: "slaves=1" in self.sentinel.ask("INFO sentinel"))


@contextmanager
def watched() -> Iterator[Watched]:
    with ExitStack() as stack:
        yield Watched(stack)
