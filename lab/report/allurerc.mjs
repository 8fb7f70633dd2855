// How Allure shows the lab's results. `python -m lab report` calls it and hands the facts in by LAB_REPORT.
const facts = JSON.parse(process.env.LAB_REPORT ?? "{}");

// Each architecture is an environment: the same scenario on both is two results, not a result and its retry.
const environments = Object.fromEntries(
  (facts.arches ?? []).map((arch) => [
    arch,
    { name: arch, matcher: ({ labels }) => labels.some((label) => label.name === "arch" && label.value === arch) },
  ]),
);

// Who has to act on a failure. The lab's errors carry their owner as a label; an assertion is the product's.
const owned = (owner) => ({ labels, status }) =>
  status !== "passed" && labels.some((label) => label.name === "owner" && label.value === owner);

export default {
  name: facts.name ?? "Phase lab",
  environments,
  variables: facts.variables ?? {},
  // Earlier runs, beside the results; bounded.
  historyPath: facts.history,
  historyLimit: facts.kept,
  appendHistory: facts.append ?? true,
  categories: [
    { name: "Flaky: passed only when tried again", matchers: ({ flaky }) => flaky === true },
    { name: "Infrastructure: the host, QEMU, a cable", matchers: owned("infrastructure") },
    { name: "Machine: a panic, a hang", matchers: owned("machine") },
    { name: "Misuse: the scenario is wrong", matchers: owned("misuse") },
    { name: "Product: an expectation failed", matchers: owned("product") },
    { name: "Product: an assertion failed", matchers: { statuses: ["failed"] } },
    { name: "Without an owner", matchers: { statuses: ["broken"] } },
  ],
  plugins: {
    awesome: {
      options: {
        reportName: facts.name ?? "Phase lab",
        singleFile: true,
        reportLanguage: "en",
        groupBy: ["parentSuite", "suite"],
      },
    },
  },
};
