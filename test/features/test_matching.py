import numpy as np

from rgsiam_ros.features.matching import mutual_matches


def test_matches_are_those_of_a_search_through_all_pairs():
    similarity = np.random.default_rng(0).uniform(0.0, 1.0, (40, 60)).astype(np.float32)
    found = mutual_matches(similarity, 0.5)
    expected = [
        (i, j)
        for i in range(40)
        for j in range(60)
        if similarity[i, j] >= 0.5
        and similarity[i, j] == similarity[i].max() == similarity[:, j].max()
    ]
    assert 10 < len(expected) < 40
    assert list(zip(found.first_M, found.second_M, strict=True)) == expected
    np.testing.assert_array_equal(found.similarity_M, similarity[found.first_M, found.second_M])


def test_matches_that_are_not_similar_enough_are_left_out():
    similarity = np.array([[0.9, 0.1], [0.2, 0.6]], np.float32)
    assert mutual_matches(similarity, 0.7).first_M.tolist() == [0]
    assert mutual_matches(similarity, 0.95).first_M.tolist() == []


def test_without_descriptors_there_are_no_matches():
    for shape in ((0, 5), (5, 0), (0, 0)):
        found = mutual_matches(np.zeros(shape, np.float32), 0.5)
        assert len(found.first_M) == len(found.second_M) == len(found.similarity_M) == 0
