"""The commands: each is a function from what the command line gives to an `Answer`, which `leaktight.cli` prints."""

from leaktight.commands.bounds import bounds
from leaktight.commands.certify import certify
from leaktight.commands.demo import demo
from leaktight.commands.doctor import doctor
from leaktight.commands.history import history
from leaktight.commands.init import init
from leaktight.commands.inspect import inspect
from leaktight.commands.leak import leak
from leaktight.commands.lipschitz import lipschitz
from leaktight.commands.ops import ops
from leaktight.commands.report import report
from leaktight.commands.run import run
from leaktight.commands.verify import verify

__all__ = [
    "bounds",
    "certify",
    "demo",
    "doctor",
    "history",
    "init",
    "inspect",
    "leak",
    "lipschitz",
    "ops",
    "report",
    "run",
    "verify",
]
