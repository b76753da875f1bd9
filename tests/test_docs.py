import pytest

from scanpy_scvi._docs import with_parameters_of


def source(a, b, c):
    """Do one thing.

    Parameters
    ----------
    a
        First,

        in two paragraphs.
    b, c
        Both.

    Returns
    -------
    Nothing.
    """


def test_what_a_function_leaves_out_is_taken_in_the_order_of_its_signature():
    @with_parameters_of(source)
    def other(c, new, a):
        """Do another.

        Parameters
        ----------
        new
            Its own.
        a
            Said anew.

        Returns
        -------
        Nothing either.
        """

    assert other.__doc__ == (
        "Do another.\n\nParameters\n----------\nc\n    Both.\nnew\n    Its own.\na\n    Said anew.\n\n"
        "Returns\n-------\nNothing either.\n"
    )


def test_an_empty_section_is_filled():
    @with_parameters_of(source)
    def other(b):
        """Do.

        Parameters
        ----------
        """

    assert other.__doc__ == "Do.\n\nParameters\n----------\nb\n    Both.\n\n"


def test_a_parameter_that_nobody_describes_is_an_error():
    def other(d):
        """Do.

        Parameters
        ----------
        """

    with pytest.raises(ValueError, match="do not describe the parameter 'd'"):
        with_parameters_of(source)(other)
