/** An operator's mistake or a host that is not as it must be: one line that says what, and what to do. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  /** What the operator can do about it; printed after the message. */
  readonly hint: string;

  constructor(message: string, hint: string, options?: ErrorOptions) {
    super(message, options);
    this.hint = hint;
  }
}

/** The command line itself is wrong (exit code 2). */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** A peer broke its protocol. `spec` names the section; it is answered or its connection closed. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
  readonly spec: string;

  constructor(message: string, spec: string) {
    super(message);
    this.spec = spec;
  }
}

/** The text of anything thrown, on one line. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replaceAll(/\s*\n\s*/g, ' ');
}
