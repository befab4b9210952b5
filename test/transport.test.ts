import { expect, test } from "bun:test";
import { close } from "../ffi/libc.ts";
import { ReceiveChannel } from "../lib/engine/receive_channel.ts";
import { ReceiveState } from "../lib/engine/receive_state.ts";
import { SendChannel } from "../lib/engine/send_channel.ts";
import { SendState } from "../lib/engine/send_state.ts";
import { Payload } from "../lib/engine/slot.ts";
import { StatisticsTable } from "../lib/engine/statistics.ts";
import { BlockTable } from "../lib/memory/block_table.ts";
import { connectTo, listenAt, parseEndpoint, transportOf } from "../lib/net/endpoint.ts";
import { OpenLink } from "../lib/net/open_link.ts";
import { SessionControl } from "../lib/sync/session_control.ts";
import { RamBlock } from "../mod.ts";
import { testTimeouts } from "./kit/limits.ts";
import { MemoryConnection } from "./kit/memory_connection.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { transfer } from "./kit/transfer.ts";

const PAGE = 4096;
const PAGES = 64;
const control = new SessionControl();

test("channels send and receive over a connection without a socket", () => {
  const from = RamBlock.allocate("pc.ram", PAGES * PAGE);
  const to = RamBlock.allocate("pc.ram", PAGES * PAGE);
  fillBlock(from, 3);
  const compression = { method: "zlib", level: 1 } as const;
  const counters = new StatisticsTable(1).channel(0);
  const state = SendState.create({ channels: 1, clients: 1, pageSize: PAGE }, control);
  const connection = new MemoryConnection(undefined, [1, 7, 4096, 100_000]);
  {
    using sender = new SendChannel({
      channel: 0,
      uuid: new Uint8Array(16),
      compression,
      detectZeroPages: true,
      bandwidth: undefined,
      state,
      control,
      blocks: tableOf(from),
      counters,
    });
    const slot = state.slots[state.workingSlot(0)]!;
    slot.type = Payload.RAM;
    slot.blockIndex = 0;
    slot.pageCount = PAGES;
    slot.pages.set(Uint32Array.from({ length: PAGES }, (_, page) => page));
    sender.serve(connection, slot);
  }
  using receiver = new ReceiveChannel({
    channel: 0,
    pageSize: PAGE,
    compression,
    state: new ReceiveState(1, control),
    control,
    blocks: tableOf(to),
    counters,
    devices: [],
    idleMs: testTimeouts.idleMs,
  });
  receiver.run(connection);
  expect(differingPages(from, to)).toEqual([]);
});

function tableOf(block: RamBlock): BlockTable {
  const table = new BlockTable(block.bytes);
  table.add(block);
  return table;
}

test("a session runs over a Unix socket that has no file", async () => {
  const endpoint = `unix-abstract:multifd-test-${process.pid}`;
  const block = RamBlock.allocate("pc.ram", 512 * PAGE);
  fillBlock(block, 5);
  const both = { channels: 3, compression: "zstd" } as const;
  const receiver = { endpoint };
  for (let round = 0; round < 2; round++) {
    // The name is free again at once.
    const { blocks } = await transfer({ both, receiver, sender: { blocks: [block] } });
    expect(blocks.flatMap((copy) => differingPages(block, copy))).toEqual([]);
  }
});

test("an open connection is used by one thread or by two, and that is said once", () => {
  const endpoint = parseEndpoint("127.0.0.1:0");
  const listener = listenAt(endpoint, 1);
  const fd = connectTo(listener.endpoint, 1000, control, () => {});
  try {
    const whole = new OpenLink(transportOf(endpoint), { fd });
    expect(whole.attach(control, testTimeouts).hasUnreadBytes()).toBe(false);
    expect(() => whole.split(control, testTimeouts)).toThrow("in use already");
    const halves = new OpenLink(transportOf(endpoint), { fd });
    expect(halves.split(control, testTimeouts).receiving).toMatchObject({ direction: "receiving" });
    expect(() => halves.attach(control, testTimeouts)).toThrow("in use already");
    const shared = new OpenLink(transportOf(endpoint), { fd }).share(control, testTimeouts);
    expect(shared.whole().hasUnreadBytes()).toBe(false);
    expect(shared.lend()).toMatchObject({ direction: "sending" });
    expect(() => shared.whole()).toThrow("another thread sends on it");
    expect(() => shared.lend()).toThrow("another thread sends on it");
    shared.takeBack();
    expect(shared.whole().hasUnreadBytes()).toBe(false);
  } finally {
    close(fd);
    close(listener.fd);
  }
});
