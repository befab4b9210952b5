import { beforeAll, expect, test } from "bun:test";
import { close } from "../ffi/libc.ts";
import { listenAt } from "../lib/net/endpoint.ts";
import { CancelledError, connect, formatEndpoint, listen, RamBlock } from "../mod.ts";
import { rejectionOf } from "./kit/errors.ts";
import { differingPages, fillBlock, fillPage } from "./kit/page_content.ts";
import { RawDestination } from "./kit/raw_destination.ts";
import { handshake, mainStream, packet, RawSource, syncPacket } from "./kit/raw_peer.ts";
import { expectReleased, resourcesNow } from "./kit/resources.ts";
import { transfer } from "./kit/transfer.ts";
import { testTimeouts } from "./kit/limits.ts";

const large = RamBlock.allocate("pc.ram", 16 * 1_048_576);
for (let page = 0; page < large.pages; page++)
  fillPage(large.view(page * 4096, 4096), "random", page);

/** From the signal to the rejection. The promise is one second; a busy machine gets three tries. */
const CANCEL_LIMIT_MS = 1000;

const join = (...parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));

async function expectTransfer(): Promise<void> {
  const block = RamBlock.allocate("pc.ram", 200 * 4096);
  fillBlock(block, 5);
  const { blocks } = await transfer({ sender: { blocks: [block] } });
  expect(differingPages(block, blocks[0]!)).toEqual([]);
}

beforeAll(expectTransfer);

/** A session under way: what it waits for, and when it is where the test wants it to be. */
type Session = (signal: AbortSignal, ready: () => void) => Promise<unknown>;

async function expectCancelled(session: Session): Promise<void> {
  const before = resourcesNow();
  let ms = Infinity;
  for (let attempt = 0; attempt < 3 && ms > CANCEL_LIMIT_MS; attempt++) {
    const controller = new AbortController();
    const reached = Promise.withResolvers<void>();
    const reason = new Error("the user said so");
    const running = rejectionOf(session(controller.signal, reached.resolve));
    await Promise.race([reached.promise, running]);
    await Bun.sleep(50);
    const start = performance.now();
    controller.abort(reason);
    const error = await running;
    ms = performance.now() - start;
    expect(error).toBeInstanceOf(CancelledError);
    expect(error).toMatchObject({ code: "ERR_MULTIFD_CANCELLED", cause: reason });
    expect(error.message).toContain("the user said so");
    await expectReleased(before);
  }
  expect(ms).toBeLessThan(CANCEL_LIMIT_MS);
}

/** A sender whose destination behaves as given; `run` is what it is doing when it is cancelled. */
const sending =
  (
    destination: Parameters<typeof RawDestination.listen>[0],
    run: (sender: Awaited<ReturnType<typeof connect>>, ready: () => void) => Promise<unknown>,
  ): Session =>
  async (signal, ready) => {
    await using peer = await RawDestination.listen(destination);
    await using sender = await connect({
      endpoint: peer.endpoint,
      blocks: [large],
      timeouts: testTimeouts,
      signal,
    });
    await run(sender, ready);
  };

/** A receiver whose source behaves as given. */
const receiving =
  (source: (peer: RawSource, ready: () => void) => Promise<unknown>, channels = 1): Session =>
  async (signal, ready) => {
    await using receiver = await listen({
      endpoint: "127.0.0.1:0",
      channels,
      timeouts: testTimeouts,
      signal,
    });
    using peer = new RawSource(receiver.endpoint);
    const done = receiver.complete();
    done.catch(() => {});
    await source(peer, ready);
    ready();
    await done;
  };

const cases: readonly [string, Session][] = [
  [
    "a sender that waits to be let in",
    async (signal, ready) => {
      // Room for one connection, and nobody accepts it: the others wait for the kernel.
      const listener = listenAt({ kind: "tcp", host: "127.0.0.1", port: 0 }, 0);
      setTimeout(ready, 300);
      try {
        await connect({
          endpoint: formatEndpoint(listener.endpoint),
          channels: 4,
          blocks: [large],
          timeouts: testTimeouts,
          signal,
        });
      } finally {
        close(listener.fd);
      }
    },
  ],
  [
    "a sender that waits for the destination's answer",
    async (signal, ready) => {
      await using peer = await RawDestination.listen({ pong: false, onData: ready });
      await connect({ endpoint: peer.endpoint, blocks: [large], timeouts: testTimeouts, signal });
    },
  ],
  [
    "a sender whose pages nobody reads",
    sending(
      {
        onData: (kind, bytes, socket) =>
          void (kind === "channel" && bytes > 100_000 && socket.pause()),
      },
      async (sender, ready) => {
        setTimeout(ready, 300);
        await sender.send();
      },
    ),
  ],
  [
    "a sender in the middle of its pages",
    async (signal, ready) => {
      await using peer = await RawDestination.listen({});
      await using sender = await connect({
        endpoint: peer.endpoint,
        blocks: [large],
        timeouts: testTimeouts,
        maxBandwidth: 4 * 1_048_576,
        signal,
      });
      setTimeout(ready, 300);
      await sender.send();
    },
  ],
  [
    "a sender in the pause between rounds",
    sending({}, async (sender, ready) => {
      const sent = sender.send({ rounds: 2, roundDelayMs: 60_000 });
      setTimeout(ready, 500);
      await sent;
    }),
  ],
  [
    "a sender that waits for the confirmation",
    sending({ onEnd: () => {} }, async (sender, ready) => {
      await sender.send();
      const completing = sender.complete();
      setTimeout(ready, 200);
      await completing;
    }),
  ],
  ["a receiver that nobody connects to", receiving(async () => {})],
  ["a receiver that waits for more channels", receiving((peer) => peer.open(handshake(0)), 3)],
  [
    "a receiver whose source keeps a byte coming, sooner than any wait ends,",
    async (signal, ready) => {
      const stream = mainStream("whole");
      let at = mainStream("header").byteLength;
      let timer: ReturnType<typeof setInterval> | undefined;
      try {
        await receiving(async (peer) => {
          const main = await peer.open(stream.subarray(0, at));
          await peer.open(handshake(0));
          timer = setInterval(() => peer.write(main, stream.subarray(at, ++at)), 40);
          await Bun.sleep(200);
        })(signal, ready);
      } finally {
        clearInterval(timer);
      }
    },
  ],
  [
    "a receiver in the middle of a packet",
    receiving(async (peer) => {
      await peer.open(mainStream("part"));
      await peer.open(join(handshake(0), syncPacket(), packet().subarray(0, 3000)));
      await Bun.sleep(200);
    }),
  ],
  [
    "a receiver whose channel stands at a sync point",
    receiving(async (peer) => {
      await peer.open(mainStream("setup"));
      await peer.open(join(handshake(0), syncPacket(), packet(), syncPacket()));
      await Bun.sleep(200);
    }),
  ],
  [
    "a receiver whose main connection waits for its channels",
    receiving(async (peer) => {
      await peer.open(mainStream("whole"));
      await peer.open(join(handshake(0), syncPacket()));
      await Bun.sleep(200);
    }),
  ],
  [
    "a receiver in the caller's own last step",
    async (signal, ready) => {
      await using receiver = await listen({
        endpoint: "127.0.0.1:0",
        channels: 1,
        timeouts: testTimeouts,
        signal,
        finalize: async () => {
          ready();
          await new Promise((resolve) => {
            signal.addEventListener("abort", resolve);
          });
        },
      });
      using peer = new RawSource(receiver.endpoint);
      const done = receiver.complete();
      await peer.open(mainStream("whole"));
      await peer.open(join(handshake(0), syncPacket(), syncPacket()));
      await done;
    },
  ],
  [
    "a listen() whose signal was aborted before",
    async (signal, ready) => {
      ready();
      await new Promise((resolve) => {
        signal.addEventListener("abort", resolve);
      });
      await using receiver = await listen({
        endpoint: "127.0.0.1:0",
        timeouts: testTimeouts,
        signal,
      });
      await receiver.complete();
    },
  ],
  [
    "a connect() whose signal was aborted before",
    async (signal, ready) => {
      ready();
      await new Promise((resolve) => {
        signal.addEventListener("abort", resolve);
      });
      await using peer = await RawDestination.listen({});
      await connect({ endpoint: peer.endpoint, blocks: [large], timeouts: testTimeouts, signal });
    },
  ],
];

for (const [name, session] of cases) {
  test(`an AbortSignal ends ${name} within a second`, () => expectCancelled(session));
}

test("an AbortSignal after the end changes nothing", async () => {
  const block = RamBlock.allocate("pc.ram", 64 * 4096);
  // Often enough to fall between the confirmation and the end of the threads.
  for (let round = 0; round < 10; round++) {
    const controller = new AbortController();
    const { signal } = controller;
    await transfer({
      sender: { blocks: [block], signal },
      receiver: { signal },
      send: async (sender, receiver) => {
        await sender.send();
        await sender.complete();
        controller.abort();
        await receiver.complete();
      },
    }).catch((error: unknown) => {
      expect((error as Error).message).toBe("Cannot go on: the session has ended");
    });
  }
});

test("a process that has cancelled all these sessions runs the next transfer", expectTransfer);
