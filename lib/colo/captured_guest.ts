/**
 * The part of a guest that is not RAM, checkpoint by checkpoint. The first migration brings all of
 * it; a checkpoint has the sections of all devices anew and nothing else, so the rest is kept.
 *
 * @module
 */
import type { GuestState } from "../wire/opaque_state.ts";
import { findDescription } from "../wire/vm_description.ts";
import type { ReceivedCheckpoint } from "./colo_messages.ts";

/** See the module comment. */
export class CapturedGuest {
  /** What a destination that expects a VM description reads behind the sections. */
  readonly #description: Uint8Array;
  #state: GuestState;
  #epoch = 0;

  /** @param state The guest as the first migration left it. */
  constructor(state: GuestState) {
    const { devices } = state;
    const description = findDescription(devices);
    // Sections and end mark are replaced by those of a checkpoint, the description stays. Its lengths
    // may not fit any more; QEMU does not look at them, and `analyze()` notices.
    this.#description = devices.subarray(
      description === undefined ? devices.byteLength : description.endMarkAt + 1,
    );
    this.#state = state;
  }

  /** Takes the sections of a checkpoint; returns the guest's state with it. */
  take({ epoch, deviceState }: Pick<ReceivedCheckpoint, "epoch" | "deviceState">): GuestState {
    const devices = new Uint8Array(deviceState.byteLength + this.#description.byteLength);
    devices.set(deviceState);
    devices.set(this.#description, deviceState.byteLength);
    this.#state = { ...this.#state, devices };
    this.#epoch = epoch;
    return this.#state;
  }

  /** The guest's state at checkpoint `epoch`; undefined unless that is the last one taken. */
  stateAt(epoch: number): GuestState | undefined {
    return epoch === this.#epoch ? this.#state : undefined;
  }
}
