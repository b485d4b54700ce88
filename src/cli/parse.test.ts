import assert from 'node:assert/strict';
import test from 'node:test';
import { UsageError } from '../base/errors.ts';
import { parseCommandLine, type Parsed } from './parse.ts';
import { PROGRAM } from './spec/program.ts';

function parse(...argv: string[]): Extract<Parsed, { kind: 'command' }> {
  const parsed = parseCommandLine(PROGRAM, '1.2.3', argv);
  assert.equal(parsed.kind, 'command');
  return parsed;
}

function text(...argv: string[]): string {
  const parsed = parseCommandLine(PROGRAM, '1.2.3', argv);
  assert.equal(parsed.kind, 'text');
  return parsed.kind === 'text' ? parsed.text : '';
}

function refused(...argv: string[]): string {
  let message = '';
  assert.throws(
    () => parseCommandLine(PROGRAM, '1.2.3', argv),
    (error) => {
      assert.ok(error instanceof UsageError);
      ({ message } = error);
      return true;
    },
  );
  assert.ok(!message.includes('\n'), 'one line');
  return message;
}

test('a command, its operands in order and its options by name', () => {
  const parsed = parse('serve', '-r', 'a.img', '--cache', 'none', 'b=b.img', '-p', '0');
  assert.equal(parsed.name, 'serve');
  assert.deepEqual(parsed.operands, ['a.img', 'b=b.img']);
  assert.equal(parsed.options['readOnly'], true);
  assert.equal(parsed.options['cache'], 'none');
  assert.equal(parsed.options['port'], '0');
});

test('every spelling of an option means the same, and repeated ones keep their order', () => {
  const parsed = parse('serve', 'a', 'b', 'c', '-x', '1', '--export', '2', '--export-name=3');
  assert.deepEqual(parsed.options['exportName'], ['1', '2', '3']);
  for (const spelling of ['-k', '--socket', '-U', '--unix']) {
    assert.equal(parse('serve', 'a', spelling, '-').options['socket'], '-', spelling);
  }
  for (const spelling of ['-P', '--pid-file', '--pidfile']) {
    assert.equal(parse('serve', 'a', spelling, '/p').options['pidFile'], '/p', spelling);
  }
});

test('quiet and verbose stand before or after the command', () => {
  assert.equal(parse('-q', 'serve', 'a').options['quiet'], true);
  assert.equal(parse('serve', '-q', 'a').options['quiet'], true);
  assert.equal(parse('serve', 'a').options['quiet'], undefined);
});

test('wrong command lines are refused in one line that names the mistake', () => {
  assert.match(refused(), /no command given/);
  assert.match(refused('sreve', 'a'), /unknown command 'sreve'.*serve/);
  assert.match(refused('serve'), /missing required argument 'DISK'.*holdfast serve --help/);
  assert.match(refused('serve', 'a', '--cahce', 'none'), /unknown option '--cahce'.*--cache/);
  assert.match(refused('serve', 'a', '--cache', 'wb'), /'wb' is invalid.*writeback, none/);
  assert.match(refused('serve', 'a', '--cache'), /argument missing/);
  assert.match(refused('create', 'a', '1G', 'b'), /too many arguments/);
  assert.match(refused('completion', 'ksh'), /bash, zsh, fish/);
});

test('the environment supplies the reactor, the command line overrules it, and both are checked', (t) => {
  const before = process.env['HOLDFAST_REACTOR'];
  t.after(() => {
    if (before === undefined) delete process.env['HOLDFAST_REACTOR'];
    else process.env['HOLDFAST_REACTOR'] = before;
  });
  process.env['HOLDFAST_REACTOR'] = 'portable';
  assert.equal(parse('serve', 'a').options['reactor'], 'portable');
  assert.equal(parse('serve', 'a', '--reactor', 'auto').options['reactor'], 'auto');
  process.env['HOLDFAST_REACTOR'] = 'epoll';
  assert.match(refused('serve', 'a'), /'epoll' from env 'HOLDFAST_REACTOR'.*io_uring/);
});

test('a command of two words, its group alone, and its mistakes', () => {
  const parsed = parse('lab', 'cut', '/run/c.sock', 'root', '--seed', '7', '-q');
  assert.equal(parsed.name, 'lab cut');
  assert.deepEqual(parsed.operands, ['/run/c.sock', 'root']);
  assert.deepEqual([parsed.options['seed'], parsed.options['quiet']], ['7', true]);
  for (const words of [['lab'], ['lab', '--help'], ['help', 'lab'], ['-q', 'lab']]) {
    assert.match(text(...words), /^Usage: holdfast lab COMMAND[^]*\n {2}cut {2,}/, words.join(' '));
  }
  assert.match(text('lab', 'help', 'cut'), /^Usage: holdfast lab cut \[OPTION\]/);
  assert.match(text('--help'), /\n {2}lab {2,}/);
  assert.match(refused('lab', 'cup'), /unknown command 'cup'.*cut.*'holdfast lab --help'/);
  assert.match(refused('lab', 'cut'), /'SOCKET'.*'holdfast lab cut --help'/);
  assert.match(refused('lab', '--cut'), /unknown option '--cut'/);
});

test('help and version are text, for the program and for each command', () => {
  assert.equal(text('--version').trim(), '1.2.3');
  assert.match(text('--help'), /serve disks over NBD/);
  assert.match(text('help', 'create'), /holdfast create \[OPTION\]\.\.\. PATH SIZE/);
  for (const command of PROGRAM.commands) {
    const help = text(...command.name.split(' '), '--help');
    for (const option of command.options) assert.ok(help.includes(option.long), option.long);
    for (const line of help.split('\n')) {
      if (!line.startsWith('  ') || line.length <= 100) continue;
      assert.ok(
        command.examples.some((example) => line.includes(example.command)),
        line,
      );
    }
  }
});

test('the declaration itself: names are unique, and every option that takes a value says which', () => {
  for (const command of PROGRAM.commands) {
    const names = [...command.options, ...PROGRAM.options].flatMap((option) => [
      option.long,
      ...(option.short === undefined ? [] : [option.short]),
      ...(option.aliases ?? []),
    ]);
    assert.deepEqual(names, [...new Set(names)], command.name);
    for (const option of command.options) {
      assert.match(option.description, /\.$/, option.long);
      if (option.placeholder === undefined) assert.equal(option.choices, undefined, option.long);
    }
  }
});
