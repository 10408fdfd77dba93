"""A space of a generation while it is written: its vectors, each once, the images that have them, and a graph."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.catalog.catalog import Catalog
from search.errors import GenerationDamaged
from search.generations.ann import SEARCH_METHOD, Graph, Positions, Vectors
from search.generations.background import Background
from search.generations.false_matches import AGAINST, measure, must_measure
from search.generations.fitting import Fitted, fitted, kept
from search.generations.generation import SpaceSnapshot, map_vectors
from search.generations.groups import Digester, Groups, first_equals
from search.generations.hashed_file import HashedFile
from search.generations.held_out import CANDIDATES_PER_QUERY, HeldOut
from search.generations.policy import Policy
from search.generations.recall import measure_recall, suffices
from search.generations.transform import Sample
from search.recipe import IDENTITY
from search.types import JsonObject, Space

OpenFile = Callable[[str, bool], AbstractContextManager[HashedFile]]
"""Opens a file of the draft by its name; the flag: that begins with the last generation's file of this name."""
UNSEEN, WAITS = -1, -2
"""Instead of a node: its vector was not written yet; it is held out, and comes last."""
READ_VECTORS = 16_384
"""Vectors of the last generation read at once."""


class SpaceDraft:
    """One space of a draft: it goes on from `before`, a snapshot of the last generation, or starts from scratch."""

    def __init__(
        self,
        space: Space,
        catalog: Catalog,
        *,
        before: SpaceSnapshot | None,
        added: NDArray[np.int64],
        since: int,
        upto: int,
        min_recall: float,
        policy: Policy,
        pause: Callable[[], None],
    ) -> None:
        """Reads the space's vectors of images added after the seq `since` and up to `upto`, to see which are equal.

        added: (n,) int64, the rowids of these. pause: called before each few thousand; what it raises comes through.
        Raises IndexDamaged.
        """
        self.space = space
        self._catalog = catalog
        self.before = before
        self._since, self._upto = since, upto
        self._min_recall = min_recall
        self._policy = policy
        self._pause = pause
        self._known = 0 if before is None else len(before.vectors)
        self._outgrown = False
        self._shuffled = np.random.default_rng(upto).permutation(added)
        self._transform, self._transform_facts = self._fitted()
        if self._outgrown:  # another draft will be made, from scratch
            return
        self._held_out = HeldOut(self._sample(), policy, space.recipe.count * len(added) if before is None else 0)
        self._rowids, self._equals = self._find_equals()
        self._new = np.unique(self._equals[self._equals >= self._known])
        self._measures = self._must_measure(self._known + len(self._new))
        self._queries, self._late = self._held_out.choose(self._equals)
        if not self._measures:
            self._late = self._late[:0]

    @property
    def may_go_on(self) -> bool:
        """Whether its transform still fits, and what its graph finds is known, or can be measured with what is new."""
        if self._outgrown:
            return False
        if self.before is None or not self._measures:
            return True
        few = len(self._queries[0]) < self._policy.min_held_out_vectors
        return not few and self.before.graph is not None and suffices(self.before.facts["search"], self._min_recall)

    def write(self, open_file: OpenFile, last_graph: Path | None) -> JsonObject:
        """Write the space's files. Returns its entry in the manifest.

        last_graph: the graph to go on from, if any. Raises OSError, GenerationDamaged, IndexDamaged, and what `pause`
        raises.
        """
        began = time.perf_counter()
        name, dim = self.space.name, self._transform.dim
        rowids, nodes, count, held_out, sizes = self._write_vectors(open_file)
        with open_file(f"{name}.rowids", False) as file:
            file.write(rowids.astype("<i8").tobytes())
        sizes += file.size
        if content := self._transform.to_bytes():
            with open_file(f"{name}.transform", False) as file:
                file.write(content)
        if count < len(rowids):
            groups = Groups.of(nodes, self._ranks(rowids), count)
            with open_file(f"{name}.groups", False) as file:
                file.write(np.concatenate([groups.nodes, groups.members]).astype("<i4").tobytes())
            sizes += file.size
        graph, facts = None, {} if self.before is None else self.before.facts["search"]
        vectors = map_vectors(file.path.with_name(f"{name}.vectors"), count, dim)
        if needs_graph(count, dim, self._min_recall, self._policy) and (held_out or last_graph is not None):
            graph, facts = self._graph(last_graph, vectors, held_out, facts)
        if graph is not None:
            with open_file(f"{name}.faiss", False) as file:
                graph.write(file.write)
            sizes += file.size
        return {
            "structure": "exact" if graph is None else "hnsw",
            "count": len(rowids),
            "distinct": count,
            "dim": dim,
            "added_seq": self.space.added_seq,
            "transform": self._transform_facts,
            "recipe": self.space.recipe.to_json(),
            "search": facts,
            "fmr": self._false_matches(vectors, rowids, nodes),
            "bytes_per_vector": round(sizes / max(1, len(rowids)), 1),
            "build_seconds": round(time.perf_counter() - began, 2),
        }

    def _must_measure(self, count: int) -> bool:
        """Whether so many different vectors need a graph whose recall is not known."""
        needed = needs_graph(count, self._transform.dim, self._min_recall, self._policy)
        known = self.before is not None and recall_is_known(self.before, count, self._min_recall, self._policy)
        return needed and not known

    def _fitted(self) -> Fitted:
        """The transform of the generation before, as long as it fits."""

        each = self.space.recipe.count

        def sample_of(rowids: NDArray[np.int64]) -> Sample:
            return lambda count: self._catalog.vectors(self.space, rowids[: -(-count // each)])[1]

        def all_of_them() -> Sample:
            there = self._catalog.members(self.space, self._upto)
            return sample_of(np.random.default_rng(self._upto).permutation(there))

        added, before = len(self._shuffled), self.before
        if before is None:
            return fitted(self.space, sample_of(self._shuffled), added)
        old = Fitted(before.transform, before.facts.get("transform", IDENTITY.to_json()))
        found = kept(self.space, old, all_of_them, len(before.rowids) // each + added)
        self._outgrown = found is None
        return old if found is None else found

    def _sample(self) -> Vectors:
        """Some new vectors, (c, dim), each once, in random order: where most images are equal, of more of them."""
        added, each = self._shuffled, self.space.recipe.count
        sampled = np.empty((0, self._transform.dim), dtype=np.float32)
        if not self._must_measure(self._known + each * len(added)):
            return sampled
        wanted = min(CANDIDATES_PER_QUERY * self._policy.held_out_vectors, each * len(added) // 2)
        images = max(1, wanted // each)
        for start in range(0, min(len(added), 32 * images), images):
            self._pause()
            _, block = self._catalog.vectors(self.space, added[start : start + images])
            sampled = np.concatenate([sampled, self._transform.apply(block)])
            _, first = np.unique(sampled, axis=0, return_index=True)
            sampled = sampled[np.sort(first)]
            if len(sampled) >= wanted:
                break
        shuffled: Vectors = np.random.default_rng(self._upto).permutation(sampled[:wanted])  # they came by rowid
        return shuffled

    def _new_vectors(self) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        """New vectors, as they are searched: rowids and (n, dim) float32 vectors, a few thousand at once."""
        for rowids, block in self._catalog.all_vectors(self.space, since=self._since, upto=self._upto):
            self._pause()
            yield rowids, self._transform.apply(block)

    def _find_equals(self) -> tuple[NDArray[np.int64], Positions]:
        """The rowids of what is new, and for each the number of the first vector that equals its own."""
        dim = self._transform.dim
        digester = Digester(dim)
        rowids, digests = [np.empty(0, dtype=np.int64)], [digester.digests(np.empty((0, dim), "f4"))]
        for ids, block in self._new_vectors():
            rowids.append(ids)
            digests.append(digester.digests(block))
            self._held_out.see_new(block)
        known, new = digests[:1], np.concatenate(digests)
        for start in range(0, self._known if len(new) else 0, READ_VECTORS):
            self._pause()
            assert self.before is not None
            block = self.before.vectors[start : start + READ_VECTORS]
            known.append(digester.digests(block))
            self._held_out.see_old(block)
        return np.concatenate(rowids), first_equals(np.concatenate(known), new)

    def _write_vectors(self, open_file: OpenFile) -> tuple[NDArray[np.int64], Positions, int, int, int]:
        """Write each vector once, those held out last.

        Returns rowids and nodes of all positions, (n,) int64 each, how many nodes there are and how many of them were
        held out, and the file's bytes. An image that was removed after `_find_equals` is in none of them.
        """
        known, before = self._known, self.before
        order = np.argsort(self._rowids)
        node_of = np.concatenate([np.arange(known), np.full(len(self._rowids), UNSEEN)])
        rowids, equals, late, count = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [], known
        with open_file(f"{self.space.name}.vectors", before is not None) as file:
            for ids, block in self._new_vectors():
                rowids.append(ids)
                equals.append(self._equals[order[np.searchsorted(self._rowids, ids, sorter=order)]])
                _, first = np.unique(equals[-1], return_index=True)
                first = np.sort(first[node_of[equals[-1][first]] == UNSEEN])
                waits = np.isin(equals[-1][first], self._late)
                late.append((equals[-1][first[waits]], block[first[waits]]))
                node_of[late[-1][0]] = WAITS
                first = first[~waits]
                node_of[equals[-1][first]] = count + np.arange(len(first))
                count += len(first)
                file.write(block[first].astype("<f4").tobytes())
            seen = count
            for numbers, block in late:
                node_of[numbers] = count + np.arange(len(numbers))
                count += len(numbers)
                file.write(block.astype("<f4").tobytes())
        nodes = node_of[np.concatenate(equals)]
        by_node = np.argsort(nodes, kind="stable")  # where all vectors are different, position and node are the same
        old_rowids = rowids[0] if before is None else before.rowids
        old_nodes = np.arange(known) if before is None or before.groups is None else before.groups.nodes
        return (
            np.concatenate([old_rowids, np.concatenate(rowids)[by_node]]),
            np.concatenate([old_nodes, nodes[by_node]]).astype(np.int64),
            count,
            count - seen,
            file.size,
        )

    def _false_matches(self, vectors: Vectors, rowids: NDArray[np.int64], nodes: Positions) -> JsonObject:
        """The manifest's entry `fmr`: the false-match rates of scores, and of how many images. Empty for very few."""
        facts = None if self.before is None else self.before.facts
        if self.space.recipe.regions is not None or not must_measure(facts, len(rowids)):
            known: JsonObject = {} if facts is None else facts.get("fmr", {})
            return known
        living = np.flatnonzero(np.isin(rowids, self._catalog.members(self.space, self._upto)))
        drawn, first = np.unique(nodes[living], return_index=True)  # nodes, each with an image that is still there
        order = np.random.default_rng(self._upto).permutation(len(drawn))[:AGAINST]
        images = rowids[living[first[order]]].tolist()
        known_hashes = self._catalog.hashes(images)
        background = Background.of(vectors, copy_cosine=self._transform.copy_cosine)
        found = measure(
            vectors[drawn[order]],
            [known_hashes[rowid][2] if rowid in known_hashes else None for rowid in images],
            background=background,
            min_cosine=self._transform.copy_cosine,
            pause=self._pause,
        )
        rates = {} if found is None else {**found.to_json(), "background": background.to_json(len(vectors))}
        return {"images": len(rowids), **rates}

    def _ranks(self, rowids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ranks of these images' ids among all ids, (n,); those of removed images come last."""
        by_id = self._catalog.rowids_by_id()
        rowids = rowids // self.space.recipe.count
        ranks = np.full(max(int(by_id.max(initial=0)), int(rowids.max(initial=0))) + 1, len(by_id))
        ranks[by_id] = np.arange(len(by_id))
        found: NDArray[np.int64] = ranks[rowids]
        return found

    def _graph(
        self, last: Path | None, vectors: Vectors, held_out: int, facts: JsonObject
    ) -> tuple[Graph | None, JsonObject]:
        """A graph over all vectors, and what is known of its answers; None where it does not find enough.

        One that has grown and does not any more (its codes may not fit what is new) is built from scratch.
        """
        seen = len(vectors) - held_out
        if last is not None:
            try:
                graph = Graph.read(last, writable=True)
            except RuntimeError as error:
                raise GenerationDamaged(f"{last} cannot be read: {error}.") from error
            graph.add(vectors[graph.count : seen], self._pause)
            if not held_out:
                return graph, facts
            facts = self._measured(graph, vectors, seen)
            if suffices(facts, self._min_recall):
                graph.add(vectors[seen:], self._pause)
                return graph, facts
        graph = Graph.train(vectors, links=self._policy.links, ef_construction=self._policy.ef_construction)
        graph.add(vectors[:seen], self._pause)
        facts = self._measured(graph, vectors, seen)
        if not suffices(facts, self._min_recall):
            return None, facts
        graph.add(vectors[seen:], self._pause)
        return graph, facts

    def _measured(self, graph: Graph, vectors: Vectors, seen: int) -> JsonObject:
        """The manifest's entry `search`: recall and parameters of a graph over the first `seen` vectors."""
        measured = measure_recall(
            graph, vectors[:seen], self._queries, self._min_recall, policy=self._policy, pause=self._pause
        )
        return {
            "links": self._policy.links,
            "ef_construction": self._policy.ef_construction,
            **SEARCH_METHOD,
            "ef": measured.ef,
            "recall": math.floor(measured.mean * 10_000) / 10_000,
            "recall_worst_tenth": math.floor(measured.worst_tenth * 10_000) / 10_000,
            "one_in": measured.one_in,
            "min_recall": self._min_recall,
            "queries": measured.queries,
            "count": len(vectors),
        }


def needs_graph(count: int, dim: int, min_recall: float, policy: Policy) -> bool:
    """Whether so many different vectors are too many to be compared one by one."""
    return count * dim * 4 > policy.exact_search_bytes and min_recall < 1


def recall_is_known(space: SpaceSnapshot, count: int, min_recall: float, policy: Policy) -> bool:
    """Whether a graph over so many different vectors is known to find enough, or no graph to do so, by an earlier
    measurement."""
    known = space.facts["search"]
    if not known or count >= policy.remeasure_growth * known["count"]:
        return False
    if any(known.get(key) != value for key, value in SEARCH_METHOD.items()):
        return False
    return suffices(known, min_recall) == (space.graph is not None)
