import { describe, expect, test } from "bun:test";
import { CapturedGuest } from "../lib/colo/captured_guest.ts";
import {
  blobAbout,
  blobWith,
  checkGuestSections,
  checkStateBytes,
  readBlob,
} from "../lib/colo/device_state_blob.ts";
import { CheckpointLog } from "../lib/colo/checkpoint_statistics.ts";
import { ColoProgress, Step } from "../lib/colo/colo_progress.ts";
import { CHECKPOINT_STATE_BYTES_MAX } from "../lib/limits.ts";
import {
  awaitColoMessage,
  ColoMessage,
  expectColoMessage,
  sendColoMessage,
} from "../lib/wire/colo_message.ts";
import type { ByteWriter } from "../lib/wire/byte_writer.ts";
import { MainStreamReader, type MainStreamHandler } from "../lib/wire/main_stream_reader.ts";
import { encodeFullSection, MainStreamWriter } from "../lib/wire/main_stream_writer.ts";
import type { GuestState } from "../lib/wire/opaque_state.ts";
import { sendReturnMessage } from "../lib/wire/return_path.ts";
import { ChannelError, LimitError, RamBlock, StreamError } from "../mod.ts";
import { hex, readerOf, written } from "./kit/byte_ends.ts";
import { thrownBy } from "./kit/errors.ts";
import { tableOf } from "./kit/table_blocks.ts";

const blocks = tableOf(RamBlock.allocate("pc.ram", 4 * 4096));

/** A handler that accepts RAM, and COLO if it is to. */
function handler(isSecondary: boolean): MainStreamHandler & { readonly pages: number[] } {
  const pages: number[] = [];
  return {
    pages,
    configuration: () => {},
    openReturnPath: () => {},
    ping: () => {},
    switchoverStart: () => {},
    goesOn: () => isSecondary,
    ramBlocks: () => {},
    zeroPage: (_idstr, offset) => void pages.push(offset / 4096),
    syncMarker: () => {},
    ramSectionEnd: () => {},
    fullSection: () => false,
  };
}

/** A migration of one zero page, and what follows it on the connection. */
function migration(enableColo: boolean, after: (out: ByteWriter) => void = () => {}): Uint8Array {
  return written((out) => {
    const writer = new MainStreamWriter(out);
    writer.header({ machine: "pc", capabilities: [] });
    if (enableColo) out.bytes(Uint8Array.of(8, 0, 8, 0, 0)); // the command with its length
    writer.beginRamSection("start");
    writer.blockList(blocks);
    writer.endRamSection();
    writer.beginRamSection("end");
    writer.zeroPage(blocks[0]!, 1);
    writer.endRamSection();
    writer.end({});
    after(out);
  });
}

describe("MainStreamReader: COLO", () => {
  test("the RAM of a checkpoint is sections and an end mark, without header and description", () => {
    const bytes = migration(false, (out) => {
      const writer = new MainStreamWriter(out);
      writer.beginRamSection("end");
      writer.zeroPage(blocks[0]!, 3);
      writer.endRamSection();
      writer.endMark();
      out.u32(ColoMessage.VMSTATE_SIZE);
    });
    const reader = readerOf(bytes);
    const target = handler(true);
    const stream = new MainStreamReader(reader, target, 4096);
    stream.readAll();
    stream.readCheckpoint();
    expect(target.pages).toEqual([1, 3]);
    expect(reader.u32()).toBe(ColoMessage.VMSTATE_SIZE);
  });

  test("a checkpoint without the END section of RAM is refused", () => {
    const stream = new MainStreamReader(
      readerOf(migration(false, (out) => out.u8(0))),
      handler(true),
      4096,
    );
    stream.readAll();
    const error = thrownBy(() => stream.readCheckpoint());
    expect(error).toBeInstanceOf(StreamError);
    expect(error).toMatchObject({ code: "ERR_MULTIFD_STREAM_SECTION" });
  });

  test("ENABLE_COLO is taken by a secondary and refused by any other destination", () => {
    const bytes = migration(true);
    new MainStreamReader(readerOf(bytes), handler(true), 4096).readAll();
    const reader = new MainStreamReader(readerOf(bytes), handler(false), 4096);
    expect(thrownBy(() => reader.readAll())).toMatchObject({ code: "ERR_MULTIFD_STREAM_COMMAND" });
  });
});

describe("awaitColoMessage", () => {
  test("messages are 32-bit words in network order", () => {
    const bytes = written((out) => {
      for (const message of Object.values(ColoMessage)) sendColoMessage(out, message);
    });
    expect(bytes).toEqual(hex("00000000 00000001 00000002 00000003 00000004 00000005 00000006"));
  });

  test("another word is an error, the end in place of one is told or an error", () => {
    const seven = readerOf(Uint8Array.of(0, 0, 0, 7));
    expect(thrownBy(() => awaitColoMessage(seven, 1, "await checkpoint"))).toMatchObject({
      code: "ERR_MULTIFD_STREAM_COLO",
    });
    const nothing = new Uint8Array(0);
    expect(awaitColoMessage(readerOf(nothing), 1, "await checkpoint")).toBe(false);
    const ended = thrownBy(() => expectColoMessage(readerOf(nothing), 2, "begin checkpoint"));
    expect(ended).toBeInstanceOf(ChannelError);
    expect(ended.message).toBe(
      "Cannot begin checkpoint: the peer ended the connection in place of message 2",
    );
    expect(awaitColoMessage(readerOf(Uint8Array.of(0, 0, 0, 1)), 1, "await checkpoint")).toBe(true);
  });

  test("says of a peer's failure what it is that cannot be done", () => {
    const content = { code: "ERR_MULTIFD_TIMEOUT", message: "Cannot load: it is slow" };
    const reader = readerOf(written((out) => sendReturnMessage(out, { name: "failure", content })));
    expect(() => expectColoMessage(reader, 2, "begin checkpoint")).toThrow(
      "Cannot begin checkpoint: the receiver refused: Cannot load: it is slow",
    );
  });
});

describe("readBlob", () => {
  test("a state inline, of any length, is a FULL section and an end mark", () => {
    for (const state of [
      new Uint8Array(0),
      Uint8Array.of(1, 2, 3),
      new Uint8Array(70_000).fill(9),
    ]) {
      expect(readBlob(new Uint8Array(Buffer.concat(blobWith(state))))).toEqual(state);
    }
    const bytes = Buffer.concat(blobWith(Uint8Array.of(0xaa)));
    expect(bytes.toString("latin1")).toContain("\rmultifd/state");
    expect([bytes[0], bytes.at(-6), bytes.at(-1)]).toEqual([0x04, 0x7e, 0x00]);
  });

  test("a state over the channels is told by its length, which has a limit", () => {
    expect(readBlob(new Uint8Array(Buffer.concat(blobAbout(5_000_000))))).toBe(5_000_000);
    const above = new Uint8Array(Buffer.concat(blobAbout(CHECKPOINT_STATE_BYTES_MAX + 1)));
    expect(thrownBy(() => readBlob(above))).toBeInstanceOf(LimitError);
    expect(thrownBy(() => checkStateBytes(2 ** 52))).toBeInstanceOf(LimitError);
  });

  test("sections of others, and what only looks like ours, are handed on whole", () => {
    const whole = new Uint8Array(Buffer.concat(blobWith(Uint8Array.of(1, 2, 3))));
    for (let length = 0; length < whole.byteLength; length++) {
      const cut = whole.slice(0, length);
      expect(readBlob(cut)).toEqual(cut);
    }
  });
});

describe("checkGuestSections", () => {
  const section = { sectionId: 7, idstr: "timer", instanceId: 0, version: 2 };
  const guest = Uint8Array.of(...encodeFullSection(section, Uint8Array.of(1, 2, 3)), 0);

  test("sections of devices and an end mark are a guest's", () => {
    expect(() => checkGuestSections(guest)).not.toThrow();
  });

  test("anything else is refused, the state of a program by its name", () => {
    const others = [new Uint8Array(0), Uint8Array.of(0), guest.subarray(1), guest.subarray(0, -1)];
    for (const blob of others) {
      expect(thrownBy(() => checkGuestSections(blob))).toMatchObject({
        code: "ERR_MULTIFD_STREAM_COLO",
      });
    }
    for (const parts of [blobWith(Uint8Array.of(1)), blobAbout(1)]) {
      const error = thrownBy(() => checkGuestSections(new Uint8Array(Buffer.concat(parts))));
      expect((error as Error).message).toContain("multifd/state");
    }
  });
});

describe("CapturedGuest", () => {
  const description = Buffer.from('\u0006\0\0\0\u000e{"devices":[]}', "latin1");
  const migrated: GuestState = {
    machine: "pc-q35-11.1",
    uuid: new Uint8Array(16),
    validateUuid: false,
    ramSectionId: 1,
    early: Uint8Array.of(9),
    switchoverStart: true,
    devices: new Uint8Array(Buffer.concat([Uint8Array.of(4, 4, 0), description])),
  };
  const deviceState = Uint8Array.of(4, 5, 6, 0);

  test("a checkpoint replaces the sections, and everything else stays", () => {
    const guest = new CapturedGuest(migrated);
    expect(guest.stateAt(0)).toBe(migrated);
    const state = guest.take({ epoch: 1, deviceState });
    const devices = new Uint8Array(Buffer.concat([deviceState, description]));
    expect(state).toEqual({ ...migrated, devices });
    expect(guest.stateAt(1)).toBe(state);
  });

  test("memory of one checkpoint is never given the state of another", () => {
    const guest = new CapturedGuest(migrated);
    expect(guest.stateAt(1)).toBeUndefined();
    guest.take({ epoch: 1, deviceState });
    expect([guest.stateAt(0), guest.stateAt(2)]).toEqual([undefined, undefined]);
  });

  test("a machine that sends no description gets none", () => {
    const guest = new CapturedGuest({ ...migrated, devices: Uint8Array.of(4, 4, 0) });
    expect(guest.take({ epoch: 1, deviceState }).devices).toEqual(deviceState);
  });
});

describe("ColoProgress", () => {
  test("what is pending is told by the step, from any thread", () => {
    const progress = new ColoProgress();
    const seen = new ColoProgress(progress.buffer);
    expect([seen.epoch, seen.pending]).toEqual([-1, undefined]);
    progress.reach(0);
    progress.step(Step.UNDER_WAY);
    expect([seen.epoch, seen.pending]).toEqual([0, { epoch: 1, applied: "no" }]);
    progress.step(Step.SENT);
    expect(seen.pending).toEqual({ epoch: 1, applied: "unknown" });
    expect(seen.applying).toBe(false);
    progress.step(Step.APPLYING);
    expect(seen.applying).toBe(true);
    progress.reach(1);
    expect([seen.epoch, seen.pending, seen.applying]).toEqual([1, undefined, false]);
  });
});

describe("CheckpointLog", () => {
  test("median and 99th percentile are values that occurred; many checkpoints are all counted", () => {
    const log = new CheckpointLog();
    expect(log.summary()).toMatchObject({ checkpoints: 0, pauseMs: { median: 0, p99: 0 } });
    for (let epoch = 1; epoch <= 200; epoch++) {
      const pauseMs = (epoch * 77) % 200; // every value below 200 once
      log.add({ epoch, pages: 1, wireBytes: 2, stateBytes: 0, pauseMs, transferMs: 0, applyMs: 0 });
    }
    expect(log.summary()).toEqual({
      checkpoints: 200,
      pages: { median: 1, p99: 1 },
      wireBytes: { median: 2, p99: 2 },
      pauseMs: { median: 99, p99: 197 },
    });
  });
});
