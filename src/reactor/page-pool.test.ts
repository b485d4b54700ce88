import assert from 'node:assert/strict';
import test from 'node:test';
import { AssertionError } from '../base/assert.ts';
import { Region } from '../block/memory.ts';
import { PagePool, type Page } from './page-pool.ts';

function taken(pool: PagePool): Page {
  const page = pool.take();
  assert.ok(page !== null);
  return page;
}

test('page pool: pages are made on demand up to the limit, and used again', () => {
  let made = 0;
  const pool = new PagePool(4096, 2, (bytes) => {
    made += 1;
    return Region.plain(bytes);
  });
  assert.equal(made, 0);
  const first = taken(pool);
  assert.equal(first.sizeBytes, 4096);
  taken(pool);
  assert.equal(pool.take(), null);
  assert.equal(pool.inUse, 2);
  first.release();
  assert.equal(pool.inUse, 1);
  assert.equal(taken(pool), first);
  assert.equal(made, 2);
});

test('page pool: a page goes back when its last holder lets go', () => {
  const pool = new PagePool(4096, 1, (bytes) => Region.plain(bytes));
  const page = taken(pool);
  assert.equal(page.exclusive, true);
  page.hold();
  assert.equal(page.exclusive, false);
  page.release();
  assert.equal(pool.take(), null);
  page.release();
  assert.equal(taken(pool), page);
  page.release();
  assert.throws(() => page.release(), AssertionError);
});

test('page pool: whoever waits is called once, in the order of asking', () => {
  const pool = new PagePool(4096, 1, (bytes) => Region.plain(bytes));
  const called: string[] = [];
  const page = taken(pool);
  const wait = (name: string): void => {
    pool.whenFree(() => {
      called.push(name);
      // One page and two waiters: the second finds none and waits again.
      if (pool.take() === null) wait(`${name} again`);
    });
  };
  wait('a');
  wait('b');
  assert.deepEqual(called, []);
  page.release();
  assert.deepEqual(called, ['a', 'b']);
  page.release();
  assert.deepEqual(called, ['a', 'b', 'b again']);
  page.release();
  assert.deepEqual(called, ['a', 'b', 'b again']);
});

test('page pool: a pool apart has the same memory, and pages and a limit of its own', () => {
  const made: number[] = [];
  const pool = new PagePool(4096, 1, (bytes) => {
    made.push(bytes);
    return Region.plain(bytes);
  });
  const apart = pool.apart(8192, 2);
  assert.equal(taken(apart).region.bytes.length, 8192);
  taken(apart);
  assert.equal(apart.take(), null);
  taken(pool);
  assert.deepEqual(made, [8192, 8192, 4096]);
});
