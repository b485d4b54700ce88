import { sendDatagram } from './native.ts';

/** Tells the service manager how the process is; does nothing without one. */
export type Notify = (state: string) => void;

/**
 * [sd_notify(3)]: the manager's socket is in NOTIFY_SOCKET, a path or, with @, an abstract name. The variable is
 * removed, so that commands started from here cannot speak for the server. `failed` is told of a lost message.
 */
export function openNotify(
  env: Record<string, string | undefined>,
  failed: (why: string) => void,
): Notify {
  const path = env['NOTIFY_SOCKET'];
  delete env['NOTIFY_SOCKET'];
  if (path === undefined || path === '') return () => undefined;
  return (state) => {
    const errno = sendDatagram(path, state);
    if (errno !== 0) failed(`cannot notify the service manager at ${path}: errno ${errno}`);
  };
}
