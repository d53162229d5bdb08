"""Draft: a network's nodes while rewrites work on them."""

from __future__ import annotations

from dataclasses import replace

from leaktight.models.network import Network, Node
from leaktight.models.ops import Affine, Input


class Draft:
    """Nodes by name, in topological order; `outputs` are the names that users read."""

    def __init__(self, network: Network) -> None:
        self.nodes = {node.name: node for node in network.nodes}
        self.outputs = frozenset(port.name for port in network.outputs)

    def consumers(self, name: str) -> list[str]:
        return [node.name for node in self.nodes.values() for given in node.inputs if given == name]

    def only_consumer(self, name: str) -> str | None:
        """The one node that reads the value, if nobody else does and it is no output."""
        users = self.consumers(name)
        return users[0] if len(users) == 1 and name not in self.outputs else None

    def renamable(self, node: Node) -> bool:
        """Whether nothing that users know goes by the name of the node."""
        return isinstance(node.op, Affine) and node.name not in self.outputs

    def fresh(self, wanted: str) -> str:
        """A name that no node has."""
        while wanted in self.nodes:
            wanted += "'"
        return wanted

    def bypass(self, name: str, by: str) -> None:
        """Removes a node; who read it reads `by`."""
        del self.nodes[name]
        self.reroute(name, by)

    def reroute(self, name: str, by: str) -> None:
        """Who read the one value reads the other."""
        for node in list(self.nodes.values()):
            if name in node.inputs and node.name != by:
                self.nodes[node.name] = replace(node, inputs=tuple(by if x == name else x for x in node.inputs))

    def put(self, *nodes: Node, instead_of: tuple[str, ...]) -> None:
        """Puts nodes in the place of the last of some others, all of which disappear."""
        kept = dict[str, Node]()
        for name, present in self.nodes.items():
            if name == instead_of[-1]:
                kept.update((node.name, node) for node in nodes)
            elif name not in instead_of:
                kept[name] = present
        self.nodes = kept

    def prune(self) -> None:
        """Removes every node that no output needs, except inputs."""
        wanted = set(self.outputs)
        kept = []
        for node in reversed(self.nodes.values()):
            if node.name in wanted or isinstance(node.op, Input):
                wanted.update(node.inputs)
                kept.append(node)
        self.nodes = {node.name: node for node in reversed(kept)}
