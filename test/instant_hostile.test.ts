/** Destinations that do not play their part, against a source whose memory follows the guest. */
import { expect, test } from "bun:test";
import type { Socket } from "node:net";
import { RamBlock, restore, type MultifdError } from "../mod.ts";
import { hex } from "./kit/byte_ends.ts";
import { rejectionOf } from "./kit/errors.ts";
import { RawDestination } from "./kit/raw_destination.ts";
import { EMPTY_STATE, saveSnapshot } from "./kit/snapshots.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const PAGES = 1024;
const PING = "0800020004";
const PONG = "00020004";
/** PINGs that each say how far the source is. */
const SET_UP = "00001000";
const RUNNING = "00000042";
const LIMIT_MS = 600;

/** One page of pc.ram, asked for with its name and without. */
const FIRST_REQUEST = "0003 0013 0000000000000000 00001000 06 70632e72616d";
const REQUEST = "0004 000c 0000000000000000 00001000";
const BITMAP = `0005 0007 06 70632e72616d 0000000000000080 ${"ff".repeat(PAGES / 8)} 0123456789abcdef`;
const RESUME_ACK = "0006 0004 00000001";

/** The state of one device, and the end mark. */
const TIMER = hex("04 00000009 03 746d72 00000000 00000001 01020304 7e 00000009 00");

/** Answers those PINGs, and calls `onRunning` then. */
function answering(answered: string[], onRunning: (socket: Socket) => void) {
  let tail = Buffer.of();
  return (_: string, __: number, socket: Socket, piece: Buffer): void => {
    tail = Buffer.concat([tail, piece]);
    for (const value of answered) {
      if (!tail.includes(hex(PING + value))) continue;
      answered = answered.filter((each) => each !== value);
      socket.write(hex(PONG + value));
      if (value === RUNNING) onRunning(socket);
    }
    tail = tail.subarray(-16);
  };
}

/** Restores a guest of that many pages, until it fails. */
async function failureOf(destination: RawDestination, pages = PAGES): Promise<MultifdError> {
  using folder = new TemporaryFolder();
  const input = folder.file("guest.snap");
  const block = RamBlock.allocate("pc.ram", pages * 4096);
  block.view(0, pages * 4096).fill(7);
  await saveSnapshot({
    path: input,
    blocks: [block],
    guestState: { ...EMPTY_STATE, devices: TIMER },
  });
  const timeouts = { connectMs: LIMIT_MS, stallMs: LIMIT_MS };
  return await rejectionOf(
    (async () => {
      await using restorer = await restore({
        instant: true,
        input,
        endpoint: destination.endpoint,
        timeouts,
      });
      await restorer.complete();
    })(),
  );
}

/** Keeps so much under way that the other side never finds nothing. */
function flood(socket: Socket, message: Uint8Array): void {
  const many = Buffer.alloc(1 << 21, message);
  const more = (): void => {
    if (!socket.destroyed) socket.write(many, more);
  };
  for (let under = 0; under < 8; under++) more();
}

test("a destination that says useless things without end runs into the limit on its answer", async () => {
  let flooded = false;
  await using destination = await RawDestination.listen({
    pong: false,
    onData: (_, __, socket) => {
      if (flooded) return;
      flooded = true;
      flood(socket, hex("0002 0004 00000005"));
    },
  });
  expect((await failureOf(destination)).code).toBe("ERR_MULTIFD_TIMEOUT_ANSWER");
});

for (const [what, message] of [
  ["asks for a page again and again", REQUEST],
  ["gives an answer that nobody waits for", "0002 0004 00000005"],
  ["says again that it is set up", PONG + SET_UP],
  ["says again that its guest runs", PONG + RUNNING],
] as const) {
  test(`a destination that puts nothing in place and ${what} is one that stands still`, async () => {
    let timer: Timer | undefined;
    await using destination = await RawDestination.listen({
      onData: answering([SET_UP, RUNNING], (socket) => {
        socket.write(hex(FIRST_REQUEST));
        timer = setInterval(() => socket.write(hex(message)), LIMIT_MS / 6);
      }),
    });
    try {
      const { code, message: text } = await failureOf(destination);
      expect(code).toBe("ERR_MULTIFD_TIMEOUT_STALL");
      expect(text).toContain(`put nothing in place for ${LIMIT_MS} ms`);
    } finally {
      clearInterval(timer);
    }
  });
}

test("a destination that takes everything and never says that it is done is one that stands still", async () => {
  await using destination = await RawDestination.listen({
    onData: answering([SET_UP, RUNNING, "00001001"], () => {}),
  });
  const { code, message } = await failureOf(destination, 4);
  expect(code).toBe("ERR_MULTIFD_TIMEOUT_STALL");
  expect(message).toContain(`did not confirm for ${LIMIT_MS} ms`);
});

test("a destination that says unasked which pages it has, or that it goes on, is refused", async () => {
  for (const [message, reason] of [
    [BITMAP, "a bitmap of RAM block pc.ram came, which was not asked for"],
    [RESUME_ACK, "goes on before it was asked to"],
  ] as const) {
    await using destination = await RawDestination.listen({
      onData: answering([SET_UP, RUNNING], (socket) => {
        socket.write(hex(message));
        setTimeout(() => socket.write(hex("0001 0004 00000000")), 100);
      }),
    });
    const { code, message: text } = await failureOf(destination);
    expect(code).toBe("ERR_MULTIFD_STREAM_RETURN_PATH");
    expect(text).toContain(reason);
  }
});
