import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Nexus } from './nexus.ts';
import { TASK_ATTRIBUTE } from './scsi.ts';
import { ScsiTask } from './task.ts';
import { TaskSet } from './task-set.ts';

const { SIMPLE, ORDERED, HEAD_OF_QUEUE } = TASK_ATTRIBUTE;

function nexus(name: string): Nexus {
  return new Nexus({ name, transportId: new Uint8Array(0) }, { resumable: false, key: name }, 1);
}

const one = nexus('one');

function task(tag: number, attribute: ScsiTask['attribute'] = SIMPLE, from = one): ScsiTask {
  const made = new ScsiTask();
  made.tag = tag;
  made.attribute = attribute;
  made.nexus = from;
  return made;
}

test('SIMPLE together, ORDERED alone and in its place, HEAD OF QUEUE at once', () => {
  const begun: number[] = [];
  const set = new TaskSet(({ tag }) => void begun.push(tag));
  const tasks = [
    task(0),
    task(1),
    task(2, ORDERED),
    task(3),
    task(4, HEAD_OF_QUEUE),
    task(5, ORDERED),
  ];
  for (const each of tasks) set.add(each);
  assert.deepEqual(begun, [0, 1, 4]);
  const end = (tag: number): void => set.ended(tasks[tag] as ScsiTask);
  end(0);
  end(1);
  assert.deepEqual(begun, [0, 1, 4], 'ORDERED waits also for HEAD OF QUEUE');
  end(4);
  assert.deepEqual(begun, [0, 1, 4, 2]);
  end(2);
  assert.deepEqual(begun, [0, 1, 4, 2, 3]);
  end(3);
  assert.deepEqual(begun, [0, 1, 4, 2, 3, 5]);
  end(5);
  assert.equal(set.count, 0);
});

test('tasks that end inside their beginning do not grow the stack, and keep their order', () => {
  const begun: number[] = [];
  const set = new TaskSet((each) => {
    begun.push(each.tag);
    if (each.tag > 0) set.ended(each);
  });
  const first = task(0, ORDERED);
  set.add(first);
  for (let tag = 1; tag <= 20_000; tag += 1) set.add(task(tag, tag % 3 === 0 ? ORDERED : SIMPLE));
  assert.deepEqual(begun, [0]);
  set.ended(first);
  assert.equal(begun.length, 20_001);
  assert.ok(begun.every((tag, i) => tag === i));
});

test('the end of a task is told before that of one that waited for it', () => {
  const told: number[] = [];
  const tell = ({ tag }: ScsiTask): void => void told.push(tag);
  const running: ScsiTask[] = [];
  const set = new TaskSet((begun) => {
    if (begun.tag > 0) set.ended(begun, tell);
    else running.push(begun);
  });
  set.add(task(0));
  set.add(task(1, ORDERED));
  set.add(task(2));
  set.ended(running[0] as ScsiTask, tell);
  assert.deepEqual(told, [0, 1, 2]);
});

test('aborts: dormant ones end at once, running ones are waited for', () => {
  const set = new TaskSet(() => {});
  const other = nexus('other');
  const running = task(1, ORDERED);
  const dormant = [task(2), task(3, SIMPLE, other)];
  for (const each of [running, ...dormant]) set.add(each);
  assert.equal(set.find(one, 2), dormant[0]);
  assert.equal(set.find(other, 2), null);
  assert.ok(set.has(other));
  const ended: number[] = [];
  const told: number[] = [];
  let done = 0;
  const tell = {
    end: ({ tag }: ScsiTask): void => void ended.push(tag),
    abort: ({ tag }: ScsiTask): void => void told.push(tag),
  };
  set.abort(
    (each) => each.nexus === one,
    tell,
    () => (done += 1),
  );
  assert.deepEqual([ended, told, done], [[2], [1], 0]);
  set.abort(
    () => true,
    tell,
    () => (done += 1),
  );
  assert.deepEqual([ended, told, done], [[2, 3], [1, 1], 0]);
  set.ended(running);
  assert.equal(done, 2);
  set.abort(
    () => true,
    tell,
    () => (done += 1),
  );
  assert.equal(done, 3);
  set.ended(running);
  assert.equal(set.count, 0);
});

/** What may run, by the words of SAM-5 8: worked out anew from everything that is there. */
class Model {
  readonly #there: { readonly task: ScsiTask; begun: boolean }[] = [];
  readonly begun: ScsiTask[] = [];

  add(each: ScsiTask): void {
    this.#there.push({ task: each, begun: false });
    this.#advance();
  }

  end(each: ScsiTask): void {
    this.#there.splice(
      this.#there.findIndex((entry) => entry.task === each),
      1,
    );
    this.#advance();
  }

  get running(): ScsiTask[] {
    return this.#there.filter(({ begun }) => begun).map((entry) => entry.task);
  }

  #advance(): void {
    for (let again = true; again;) {
      again = false;
      for (const [i, entry] of this.#there.entries()) {
        if (entry.begun || !this.#may(i)) continue;
        entry.begun = true;
        this.begun.push(entry.task);
        again = true;
      }
    }
  }

  #may(index: number): boolean {
    const { attribute } = (this.#there[index] as { task: ScsiTask }).task;
    if (attribute === HEAD_OF_QUEUE) return true;
    // Every HEAD OF QUEUE that is there comes first.
    if (this.#there.some((entry) => entry.task.attribute === HEAD_OF_QUEUE)) return false;
    const before = this.#there.slice(0, index);
    if (attribute === ORDERED) return before.length === 0;
    return before.every((entry) => entry.task.attribute !== ORDERED);
  }
}

test('any mixture begins in the order that SAM-5 says', () => {
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(SIMPLE, SIMPLE, ORDERED, HEAD_OF_QUEUE) },
    { weight: 2, arbitrary: fc.record({ end: fc.nat() }) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const begun: ScsiTask[] = [];
      const set = new TaskSet((each) => void begun.push(each));
      const model = new Model();
      for (const [i, each] of steps.entries()) {
        if (typeof each === 'number') {
          const added = task(i, each);
          model.add(added);
          set.add(added);
        } else {
          const { running } = model;
          const ending = running[each.end % Math.max(1, running.length)];
          if (ending === undefined) continue;
          model.end(ending);
          set.ended(ending);
        }
        assert.deepEqual(
          begun.map(({ tag }) => tag),
          model.begun.map(({ tag }) => tag),
        );
      }
    }),
    { numRuns: 300 },
  );
});
