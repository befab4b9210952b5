/**
 * A relay's page path: decodes packets into staging memory instead of guest memory and hands them to
 * send channels. Each slot of the send state has staging memory for one packet; slots change hands by
 * number, so the memory of a relay is bounded by its channels, whatever the guest's size.
 *
 * A packet is handed over before the next one is read, so when a channel stands at a sync point all
 * it received before is with the send channels.
 *
 * @module
 */
import { addressOf } from "../../ffi/arena.ts";
import { TimeoutError } from "../errors.ts";
import { PACKET_PAYLOAD_BYTES } from "../limits.ts";
import type { TableBlock } from "../memory/block_table.ts";
import type { SessionControl } from "../sync/session_control.ts";
import type { PacketExpectation } from "../wire/packet.ts";
import { PacketPlacer } from "../engine/packet_placer.ts";
import type { SendState } from "../engine/send_state.ts";
import { Payload } from "../engine/slot.ts";

/** Staging memory of all slots of a send state. */
export function createStage(channels: number, clients: number): SharedArrayBuffer {
  return new SharedArrayBuffer((2 * channels + clients) * PACKET_PAYLOAD_BYTES);
}

/** What a relay placer is made of. */
interface RelayPlacerParts {
  readonly state: SendState;
  readonly control: SessionControl;
  /** Number of this client of the send state. */
  readonly client: number;
  /** Staging memory, made by {@linkcode createStage}. */
  readonly stage: SharedArrayBuffer;
  /** How long to wait for an idle send channel while nothing moves, in milliseconds. */
  readonly limitMs: number;
}

/** See the module comment. One object serves a receive channel for its whole life. */
export class RelayPlacer extends PacketPlacer {
  readonly #parts: RelayPlacerParts;
  readonly #stageAddress: number;
  #slotNumber: number;

  constructor(expected: PacketExpectation, parts: RelayPlacerParts) {
    super(expected);
    this.#parts = parts;
    this.#stageAddress = addressOf(parts.stage);
    this.#slotNumber = parts.state.clientSlot(parts.client);
  }

  override place(blocks: readonly TableBlock[]): boolean {
    const { packet } = this;
    packet.decode(blocks);
    const { normalPages, zeroPages, pages, blockIndex } = packet;
    const count = normalPages + zeroPages;
    if (count === 0) return false;
    const slot = this.#parts.state.slots[this.#slotNumber];
    const address = this.#stageAddress + this.#slotNumber * PACKET_PAYLOAD_BYTES;
    slot.type = Payload.STAGED;
    slot.blockIndex = blockIndex;
    slot.pageCount = count;
    slot.setStaged(address, normalPages);
    for (let index = 0; index < count; index++) slot.pages[index] = pages[index];
    this.runs.assignRange(address, normalPages * blocks[blockIndex].pageSize);
    return true;
  }

  override placed(): void {
    // Staging memory has no cache and no twin.
  }

  override delivered(): void {
    const { state, limitMs, control } = this.#parts;
    const empty = state.handOff(this.#slotNumber, limitMs);
    if (empty >= 0) {
      this.#slotNumber = empty;
      return;
    }
    control.throwIfFailed();
    throw new TimeoutError(
      "ERR_MULTIFD_TIMEOUT_STALL",
      `Cannot relay pages: no outgoing channel got idle within ${limitMs} ms`,
    );
  }
}
