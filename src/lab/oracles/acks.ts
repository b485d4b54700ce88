// What workloads print after `ACK `, for the ready-made oracles: a JSON object on one line.

/** Somebody acknowledged something in words that the oracle does not know. */
export class AckError extends Error {
  override readonly name = 'AckError';
}

export type Ack = Readonly<Record<string, unknown>>;

/** The acknowledgements that have the field `field`. Throws AckError for one that is no object with it. */
export function parseAcks(texts: readonly string[], field: string): readonly Ack[] {
  return texts.map((text) => {
    let value: unknown = null;
    try {
      value = JSON.parse(text);
    } catch {
      // Told below.
    }
    if (typeof value !== 'object' || value === null || !(field in value)) {
      throw new AckError(`an acknowledgement must be a JSON object with "${field}": ${text}`);
    }
    return value as Ack;
  });
}
