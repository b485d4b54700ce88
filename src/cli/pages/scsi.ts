import type { CommandSpec } from '../../protocols/scsi/command.ts';

/** docs/reference/scsi.md: the commands, as the registry has them. */
export function renderScsiCommands(commands: readonly CommandSpec[]): string {
  const rows = commands.map((command) => [
    command.name,
    code(command),
    command.section,
    command.reservation,
    [
      ...(command.offered === undefined ? [] : ['not on every LUN']),
      ...(command.writes === true ? ['writes'] : []),
      ...(command.needsMedium === true ? [medium(command)] : []),
      ...(command.despiteUnitAttention === true ? ['despite a unit attention'] : []),
    ].join(', '),
  ]);
  return [
    '# SCSI commands',
    '',
    '<!-- Made by scripts/generate-pages.ts from src/protocols/scsi/registry.ts; do not edit. -->',
    '',
    'Every command that a logical unit knows; REPORT SUPPORTED OPERATION CODES gives the same ' +
      'list for one of them, with the bits of the CDB that are looked at. All others end with ' +
      'INVALID COMMAND OPERATION CODE, and a bit that means nothing with INVALID FIELD IN CDB and ' +
      'the place of the bit. Sections are those of SPC-4, SBC-4 and SPC-2. Everything else that ' +
      'iSCSI and SCSI ask for is on [a page of its own](iscsi.md).',
    '',
    '_Under a reservation_ says what an initiator may do while another holds one: nothing stands ' +
      'in the way of `allowed`, `reads` are refused under Exclusive Access, `writes` under every ' +
      'type, and `own` is as the standard says for the service action. _Writes_ are refused on a ' +
      'write-protected unit, _medium_ while it is ejected or being sanitized, and _loaded_ while it ' +
      'is ejected; of MODE SENSE, during SANITIZE, all but the Caching, the Control and the ' +
      'Informational Exceptions Control page.',
    '',
    ...table(['command', 'code', 'section', 'under a reservation', ''], rows),
    '',
  ].join('\n');
}

/** As far as it needs it. */
function medium({ duringSanitize }: CommandSpec): string {
  return duringSanitize === undefined ? 'medium' : 'loaded';
}

/** The operation code, and the service action where there is one, in hexadecimal digits. */
function code({ opcode, serviceAction }: CommandSpec): string {
  return serviceAction === undefined ? hex(opcode) : `${hex(opcode)}/${hex(serviceAction)}`;
}

/** Columns as wide as their widest cell, as the formatter wants them. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const all = [head, ...rows];
  const widths = head.map((_, i) => Math.max(3, ...all.map((row) => row[i]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' | ')} |`;
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)];
}

function hex(value: number): string {
  return `${value.toString(16).toUpperCase().padStart(2, '0')}h`;
}
