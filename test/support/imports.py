"""Read a package's imports as text, and find circles and arrows that run upward.

An import counts wherever it stands: at the top, inside a function, under ``TYPE_CHECKING``. A string counts
too when it is the dotted name of one of the package's modules, as in ``import_module("package.part")`` or in
a command ``python -m package.part``. Docstrings do not count.
"""

import ast
from pathlib import Path


def module_name(path, folder, package):
    """Dotted name of the file `path` of the package that lies in `folder`."""
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join([package, *(part for part in parts if part != "__init__")])


def modules_of(folder, package):
    """Dotted name of every module below `folder`, with its path."""
    return {module_name(path, folder, package): path for path in sorted(Path(folder).rglob("*.py"))}


def imported_names(source):
    """Every dotted name that a source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def words_in_strings(source):
    """Every word of a source's strings, except its docstrings."""
    tree = ast.parse(source)
    docstrings = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(getattr(node, "body", None), list)
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield from node.value.replace(":", " ").split()


def import_graph(modules):
    """For each module the modules that it names. modules: names with paths, of one or more packages."""
    graph = {}
    for name, path in modules.items():
        source = path.read_text()
        found = {word for word in words_in_strings(source) if "." in word and word in modules}
        for imported in imported_names(source):
            parts = imported.split(".")
            known = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
            target = next((prefix for prefix in known if prefix in modules), None)
            if target is not None:
                found.add(target)
        graph[name] = found - {name}
    return graph


def circles(graph):
    """Groups of modules that import each other in a circle, by Tarjan's algorithm."""
    index, low, on_stack, stack, found = {}, {}, set(), [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        on_stack.add(node)
        for target in graph[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in on_stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = []
            while True:
                last = stack.pop()
                on_stack.discard(last)
                group.append(last)
                if last == node:
                    break
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def room_of(module):
    """The room of a module: the name below the package; the package itself for its ``__init__``."""
    return module.split(".")[1] if "." in module else module


def upward_arrows(graph, rooms):
    """Arrows from a room to one above it, as text. rooms: names from the ground up."""
    place = {room: i for i, room in enumerate(rooms)}
    return sorted(
        f"{source} -> {target}"
        for source, targets in graph.items()
        for target in targets
        if place[room_of(target)] > place[room_of(source)]
    )
