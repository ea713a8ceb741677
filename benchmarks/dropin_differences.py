def measure():
    return []


def table(e):
    from benchmarks.timing import Table

    return Table("x", ["a"], [])
