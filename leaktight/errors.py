"""Everything that leaktight raises on purpose.

LeaktightError
├── InputError             something the user gave is wrong; the command line answers with exit code 2
│   ├── ModelError         a network file or module cannot be read
│   │   └── UnsupportedOperator   it can be read, but an operator in it (or its setting) has no rule here
│   ├── PropertyError      a property file or object is wrong, or does not fit the network
│   ├── DataError          labelled data is wrong, or does not fit the network
│   └── UsageError         an option or argument is wrong
└── InternalError          leaktight itself is wrong; the command line answers with exit code 70
    ├── MissingRule        an abstraction has no rule for an operator
    ├── Contradiction      two methods that must agree do not
    └── WorkerFailed       a worker process crashed, hung or was killed
"""


class LeaktightError(Exception):
    """The root of all errors raised on purpose."""


class InputError(LeaktightError):
    """What the user gave is wrong. The message says where, what came, what is allowed and what to do."""


class ModelError(InputError):
    """A network file or module cannot be read."""


class UnsupportedOperator(ModelError):
    """The network is readable, but an operator in it, or one of its settings, has no rule."""


class PropertyError(InputError):
    """A property is malformed or does not fit the network."""


class DataError(InputError):
    """Labelled data is malformed or does not fit the network."""


class UsageError(InputError):
    """An option or argument has a value that is not allowed."""


class InternalError(LeaktightError):
    """leaktight contradicts itself; never a statement about the network."""


class MissingRule(InternalError):
    """An abstraction has no rule for an operator; the message names abstraction, operator and node."""


class Contradiction(InternalError):
    """Two methods whose answers must agree do not; the message carries both numbers."""


class WorkerFailed(InternalError):
    """A worker process crashed, hung or was killed; the message says which work is lost."""
