"""One run: a recipe, a method and a seed become a result.

From the top down: ``train`` is the whole run. It drives a ``resumable`` training, which stops after any step and goes
on later. ``setup`` reads the examples and builds the network; ``optimizer`` puts the method around a
``base_optimizer``. ``steps`` takes the steps along the ``learning_rate``, ``evaluation`` scores the network, and a
``checkpoint`` keeps the state. All of them are generators that yield what they ask for, ``asking`` for forward and
backward passes, so that one driver can answer several runs together. An ``observer`` watches. ``logs`` and the
``result``, with its ``environment``, stay. ``fabric`` is the engine.

Several processes can train one run. ``place`` is what their launcher says of each, and a ``team`` is all of them.
``sharding`` shares out the weights, which ``sharded_checkpoint`` keeps.
"""
