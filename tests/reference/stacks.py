"""The plain twin of a stack of networks: one after the other."""


def one_by_one(networks, inputs):
    """Return the output of each network for its own inputs."""
    return [network(x) for network, x in zip(networks, inputs, strict=True)]
