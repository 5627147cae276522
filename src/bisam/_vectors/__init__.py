"""Arithmetic on lists of tensors: the only package that calls ``torch._foreach_*``.

What a choice works with (:class:`~bisam.choice.Vector`, :class:`~bisam.choice.Bucket`, :class:`~bisam.choice.Memory`)
is public under :mod:`bisam.choice`.
"""
