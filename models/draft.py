"""Draft: a network's nodes while rewrites work on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Input


class Draft:
    """Nodes by name; `outputs` are the names that users read.

    A change costs what it changes, not what there is: each node has a place, and nodes stand in topological order again
    after `prune`.
    """

    def __init__(self, network: Network) -> None:
        self.outputs = frozenset(port.name for port in network.outputs)
        self._nodes: dict[str, Node] = {}
        self._places: dict[str, tuple[int, ...]] = {}
        self._users: dict[str, Counter[str]] = {}
        for place, node in enumerate(network.nodes):
            self._add(node, (place,))

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self._nodes

    def only_consumer(self, name: str) -> str | None:
        """The one node that reads the value, once, if nobody else does and it is no output."""
        users = self._users.get(name, Counter[str]())
        return next(iter(users)) if sum(users.values()) == 1 and name not in self.outputs else None

    def renamable(self, node: Node) -> bool:
        """Whether nothing that users know goes by the name of the node."""
        return isinstance(node.op, Affine) and node.name not in self.outputs

    def fresh(self, wanted: str) -> str:
        """A name that no node has."""
        while wanted in self._nodes:
            wanted += "'"
        return wanted

    def bypass(self, name: str, by: str) -> None:
        """Removes a node; who read it reads `by`."""
        self._remove(name)
        self.reroute(name, by)

    def reroute(self, name: str, by: str) -> None:
        """Who read the one value reads the other."""
        for user in list(self._users.get(name, ())):
            if user != by:
                node, place = self._nodes[user], self._places[user]
                self._remove(user)
                self._add(replace(node, inputs=tuple(by if x == name else x for x in node.inputs)), place)

    def put(self, *nodes: Node, instead_of: tuple[str, ...]) -> None:
        """Puts nodes in the place of the last of some others, all of which disappear."""
        place = self._places[instead_of[-1]]
        for name in instead_of:
            self._remove(name)
        for part, node in enumerate(nodes):
            self._add(node, place if len(nodes) == 1 else (*place, part))

    def prune(self) -> None:
        """Removes every node that no output needs, except inputs."""
        wanted = set(self.outputs)
        kept = []
        for name in sorted(self._nodes, key=self._places.__getitem__, reverse=True):
            node = self._nodes[name]
            if name in wanted or isinstance(node.op, Input):
                wanted.update(node.inputs)
                kept.append((node, self._places[name]))
        self._nodes, self._places, self._users = {}, {}, {}
        for node, place in reversed(kept):
            self._add(node, place)

    def _add(self, node: Node, place: tuple[int, ...]) -> None:
        self._nodes[node.name], self._places[node.name] = node, place
        for name in node.inputs:
            self._users.setdefault(name, Counter())[node.name] += 1

    def _remove(self, name: str) -> None:
        for given in self._nodes.pop(name).inputs:
            self._users[given].pop(name, None)
        del self._places[name]
