"""JUnit XML, as test reporters read it: a suite for each network, and in it a test case for each job."""

from __future__ import annotations

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from leaktight.verify.report import testcases
from leaktight.verify.report.schemas import Document
from leaktight.verify.report.words import clean


def render(document: Document) -> str:
    """The document as XML. Failures fail the gate, errors could not be answered, and what is open is skipped."""
    suites: dict[str, TestSuite] = {}
    for case in testcases.cases(document):
        if case.group not in suites:
            suites[case.group] = TestSuite(clean(case.group))
        suites[case.group].add_testcase(_test(case))
    xml = JUnitXml("leaktight")
    for suite in suites.values():
        xml.add_testsuite(suite)
    xml.update_statistics()
    text: bytes = xml.tostring()
    return text.decode("utf-8")


def _test(case: testcases.Case) -> TestCase:
    """Each case has one outcome, the worst, which says everything that was found."""
    test = TestCase(clean(case.name), clean(case.group), case.seconds)
    for kind, some in (
        (Error, [one for one in case.findings if one.rule == "error"]),
        (Failure, [one for one in case.findings if one.fails]),
        (Skipped, list(case.findings)),
    ):
        if some:
            test.result = [kind(clean("; ".join(one.message for one in some)), some[0].rule)]
            break
    return test
