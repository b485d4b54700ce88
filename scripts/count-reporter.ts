/** What one run of node's test runner came to. */
export interface TestCounts {
  tests: number;
  suites: number;
  passed: number;
  failed: number;
  cancelled: number;
  skipped: number;
  todo: number;
  readonly skippedNames: string[];
}

interface TestEvent {
  readonly type: string;
  readonly data: {
    readonly name?: string;
    readonly skip?: string | boolean;
    /** Absent in the summary of the whole run. */
    readonly file?: string;
    readonly counts?: Readonly<Record<string, number>>;
  };
}

/** A reporter for `node --test` that writes the counts as JSON when everything has run. */
export default async function* countReporter(
  source: AsyncIterable<TestEvent>,
): AsyncGenerator<string> {
  const skippedNames: string[] = [];
  for await (const { type, data } of source) {
    if (type === 'test:pass' && data.skip !== undefined && data.skip !== false) {
      skippedNames.push(`${data.name ?? '?'}${data.skip === true ? '' : ` (${data.skip})`}`);
    }
    if (type !== 'test:summary' || data.file !== undefined) continue;
    const count = (name: string): number => data.counts?.[name] ?? 0;
    const counts: TestCounts = {
      tests: count('tests'),
      suites: count('suites'),
      passed: count('passed'),
      failed: count('failed'),
      cancelled: count('cancelled'),
      skipped: count('skipped'),
      todo: count('todo'),
      skippedNames,
    };
    yield JSON.stringify(counts);
  }
}
