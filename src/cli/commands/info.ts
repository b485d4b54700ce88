import { ConfigError, UsageError } from '../../base/errors.ts';
import { IscsiQuestions } from '../../protocols/iscsi/initiator/connect.ts';
import { formatIscsiUri, isIscsiUri, parseIscsiUri } from '../../protocols/iscsi/uri.ts';
import { connectNbd, listNbdExports } from '../../protocols/nbd/client.ts';
import { isNbdUri } from '../../protocols/nbd/uri.ts';
import { connectVhostUserBlk } from '../../protocols/vhost-user/blk-client.ts';
import { openReactor } from '../../reactor/open.ts';
import type { Reactor } from '../../reactor/reactor.ts';
import { SocketError } from '../../reactor/socket-error.ts';
import { EXIT, UnavailableError } from '../exit-codes.ts';
import { describeDevice } from '../info/device-text.ts';
import { describeExport, describeList } from '../info/export-text.ts';
import { describeFile } from '../info/file-text.ts';
import { askUnit, describeUnit } from '../info/unit-text.ts';
import type { Output } from '../output.ts';
import type { OptionValues } from '../parse.ts';
import { switchOption } from '../serve/options.ts';
import { isVhostUserBlk, parseVhostUserBlk } from '../serve/vhost-user.ts';

/** `holdfast info URI|vhost-user-blk:PATH|FILE`; the URI is NBD's or iSCSI's. */
export async function runInfo(
  operands: readonly string[],
  options: OptionValues,
  output: Output,
): Promise<number> {
  const [target = ''] = operands;
  const list = switchOption(options, 'list');
  const answer = await describe(target, list);
  if (switchOption(options, 'json')) output.data(JSON.stringify(answer.json));
  else for (const line of answer.lines) output.data(line);
  return EXIT.OK;
}

async function describe(target: string, list: boolean): Promise<InfoAnswer> {
  if (isNbdUri(target)) return askServer(target, list);
  if (list) throw new UsageError(`--list needs an NBD URI, and '${target}' is none`);
  if (isIscsiUri(target)) return askLogicalUnit(target);
  return isVhostUserBlk(target) ? askDevice(target) : describeFile(target);
}

/** One answer, for people and for programs. */
export interface InfoAnswer {
  readonly lines: readonly string[];
  readonly json: object;
}

async function askServer(uri: string, list: boolean): Promise<InfoAnswer> {
  // One connection and a few messages: the portable reactor starts faster and works everywhere.
  const { reactor } = await openReactor('portable');
  try {
    if (list) return describeList(uri, await listNbdExports(reactor, uri));
    return await askExport(reactor, uri);
  } catch (error) {
    throw error instanceof ConfigError && isSilence(error.cause) ? asUnavailable(error) : error;
  } finally {
    await reactor.close();
  }
}

/** As an initiator, with a session of its own. */
async function askLogicalUnit(target: string): Promise<InfoAnswer> {
  const uri = parseIscsiUri(target);
  if (uri.user !== null || uri.parameters.size > 0) {
    throw new UsageError(`'${formatIscsiUri(uri)}': a URI is asked without a user and without '?'`);
  }
  const { reactor } = await openReactor('portable');
  try {
    const questions = await IscsiQuestions.open(reactor, uri);
    try {
      return describeUnit(formatIscsiUri(uri), await askUnit(formatIscsiUri(uri), questions));
    } finally {
      await questions.close();
    }
  } catch (error) {
    throw error instanceof ConfigError && isSilence(error.cause) ? asUnavailable(error) : error;
  } finally {
    await reactor.close();
  }
}

/** As a front-end: the device's only one for that moment. */
async function askDevice(target: string): Promise<InfoAnswer> {
  const { address } = parseVhostUserBlk(target);
  if (address.kind === 'fd' || target.includes('?')) {
    throw new UsageError(`'${target}': a device is asked at vhost-user-blk:PATH`);
  }
  const { reactor } = await openReactor('io_uring');
  try {
    const device = await connectVhostUserBlk(reactor, address.path);
    const answer = describeDevice(target, device);
    await device.close();
    return answer;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw isSilence(error) || isSilence(error.cause) ? asUnavailable(error) : error;
  } finally {
    await reactor.close();
  }
}

/** Nobody there, or nobody who answers; as opposed to a refusal, or to keys that cannot be read. */
function isSilence(cause: unknown): boolean {
  if (cause instanceof SocketError) return true;
  return cause instanceof Error && cause.name === 'Error' && !('code' in cause);
}

function asUnavailable(error: ConfigError): UnavailableError {
  return new UnavailableError(error.message, error.hint, { cause: error });
}

async function askExport(reactor: Reactor, uri: string): Promise<InfoAnswer> {
  const client = await connectNbd(reactor, uri);
  try {
    return describeExport(uri, client.negotiated);
  } finally {
    await client.close();
  }
}
