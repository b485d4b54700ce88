import type { DiskSession, Peer } from '../../durability/disk-session.ts';

/** How an initiator port is known, across sessions and restarts [SPC-4 7.6.4 TransportID]. */
export interface InitiatorPort {
  /** For messages, and the key of reservations: "iqn.2026-11.example:host,i,0x00023d000001". */
  readonly name: string;
  /** Its TransportID, for PERSISTENT RESERVE IN and OUT. */
  readonly transportId: Uint8Array;
}

/**
 * One I_T nexus [SAM-5 4.8]: an initiator port that has logged in at a target port. What a logical unit keeps for it
 * (unit attentions, a registration's key) is found through it.
 */
export class Nexus {
  readonly initiator: InitiatorPort;
  readonly peer: Peer;
  /** [SPC-4 3.1.132] relative target port identifier. */
  readonly relativePort: number;
  /** By LUN: this nexus' way to the disk (P2, P3, P9 to P11). */
  readonly sessions = new Map<number, DiskSession>();

  constructor(initiator: InitiatorPort, peer: Peer, relativePort: number) {
    this.initiator = initiator;
    this.peer = peer;
    this.relativePort = relativePort;
  }
}
