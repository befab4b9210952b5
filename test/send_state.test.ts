import { expect, test } from "bun:test";
import { RamClient } from "../lib/engine/send_client.ts";
import { SendState } from "../lib/engine/send_state.ts";
import { Payload } from "../lib/engine/slot.ts";
import { PACKETS_PER_JOB_MIN } from "../lib/limits.ts";
import { SessionControl } from "../lib/sync/session_control.ts";
import { packetPages } from "../lib/wire/packet.ts";
import { MultifdError } from "../mod.ts";
import type { MailboxJob } from "./fixtures/mailbox_thread.ts";
import { thrownBy } from "./kit/errors.ts";
import { TestThread, until } from "./kit/threads.ts";

const PAGES_PER_PACKET = packetPages(4096);

function setUp(channels: number, clients: number) {
  const control = new SessionControl();
  const state = SendState.create({ channels, clients, pageSize: 4096 }, control);
  return { control, state };
}

/** Whether everything still has exactly one owner. */
function slotsOf(
  state: SendState,
  clients: readonly number[],
  working: readonly number[],
): number[] {
  const mailboxes: number[] = [];
  for (let channel = 0; channel < state.handle.channels; channel++) {
    // A mailbox shows its slot only by exchanging it; the exchange is undone at once.
    const words = state.channel(channel);
    const slot = words.collect(-1);
    words.collect(slot);
    mailboxes.push(slot);
  }
  return [...mailboxes, ...clients, ...working].toSorted((a, b) => a - b);
}

test("SendState gives every channel a mailbox and a working slot, and every client a slot", () => {
  const { state } = setUp(3, 2);
  const owned = slotsOf(
    state,
    [0, 1].map((client) => state.clientSlot(client)),
    [0, 1, 2].map((channel) => state.workingSlot(channel)),
  );
  expect(owned).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(state.slots).toHaveLength(8);
});

test("SendState.handOff() exchanges slots with the idle channels in turn", () => {
  const { state } = setUp(3, 1);
  for (let channel = 0; channel < 3; channel++) state.channelsReady.post();
  let mine = state.clientSlot(0);
  const given: number[] = [];
  for (let turn = 0; turn < 3; turn++) {
    given.push(mine);
    mine = state.handOff(mine, 10);
    expect(state.channel(turn).jobPending).toBe(true);
    // The slot that came back is the one that lay in that channel's mailbox.
    expect(mine).toBe(turn);
  }
  expect([0, 1, 2].map((channel) => state.channel(channel).collect(100 + channel))).toEqual(given);
});

test("SendState.handOff() passes over channels that are busy", () => {
  const { state } = setUp(3, 1);
  state.channelsReady.post();
  state.channel(0).deliver(state.clientSlot(0));
  state.channel(1).deliver(90);
  expect(state.handOff(91, 10)).toBe(2);
  expect(state.channel(2).collect(2)).toBe(91);
});

test("SendState.handOff() returns -1 when no channel gets idle, and nothing changes hands", () => {
  const { state } = setUp(1, 1);
  expect(state.handOff(state.clientSlot(0), 1)).toBe(-1);
  expect(state.channel(0).jobPending).toBe(false);
  state.channelsReady.post();
  expect(state.handOff(state.clientSlot(0), 1)).toBe(0);
});

test("RamClient collects pages of one block until a job is full", () => {
  const { control, state } = setUp(2, 1);
  state.channelsReady.post();
  state.channelsReady.post();
  const client = new RamClient(state, control, 0, 10);
  const room = PACKETS_PER_JOB_MIN * PAGES_PER_PACKET; // of a job that begins with few pages
  expect(client.queuePages(0, 5, 7)).toBe(7);
  expect(client.queuePages(0, 100, 100 + room)).toBe(100 + room - 2);
  // Full, and still the client's own: it is handed over when there is more to add.
  expect(state.channel(0).jobPending).toBe(false);
  expect(client.queuePages(0, 98 + room, 100 + room)).toBe(100 + room);
  const full = state.slots[state.channel(0).collect(50)]!;
  expect(full).toMatchObject({ type: Payload.RAM, blockIndex: 0, pageCount: room });
  expect([full.pages[0], full.pages[2], full.pages[room - 1]]).toEqual([5, 100, 97 + room]);
  // Another block needs another slot.
  client.queuePages(1, 5, 6);
  expect(state.slots[state.channel(1).collect(51)]).toMatchObject({ pageCount: 2, blockIndex: 0 });
  expect(client.pending).toBe(1);
});

test("RamClient makes long jobs of long ranges, and shorter ones towards the end", () => {
  const channels = 2;
  const { control, state } = setUp(channels, 1);
  const client = new RamClient(state, control, 0, 10);
  const lengths: number[] = [];
  const end = 5 * state.slots[0]!.pages.length;
  for (let page = 0; page < end;) {
    page = client.queuePages(0, page, end);
    lengths.push(client.pending);
    state.channelsReady.post();
    client.flush();
    const channel = (lengths.length - 1) % channels;
    state.channel(channel).collect(state.workingSlot(channel));
  }
  const [most, least] = [state.slots[0]!.pages.length, PACKETS_PER_JOB_MIN * PAGES_PER_PACKET];
  expect(lengths.reduce((sum, length) => sum + length, 0)).toBe(end);
  expect(lengths[0]).toBe(most);
  expect(lengths).toEqual(lengths.toSorted((left, right) => right - left));
  expect(lengths.slice(0, -1).every((length) => length >= least)).toBe(true);
  expect(lengths.at(-1)).toBeLessThanOrEqual(least);
});

test("RamClient.flush() reports the session's first error, or that no channel got idle", () => {
  const { control, state } = setUp(1, 1);
  const client = new RamClient(state, control, 0, 1);
  client.flush(); // nothing collected, nothing to hand over
  client.queuePages(0, 1, 2);
  expect(thrownBy(() => client.flush()).code).toBe("ERR_MULTIFD_TIMEOUT_STALL");
  control.fail(new MultifdError("ERR_MULTIFD_TEST", "the first failure"));
  expect(thrownBy(() => client.flush()).code).toBe("ERR_MULTIFD_TEST");
});

test("ChannelWords hold a job and a sync at once, and the work semaphore counts both", () => {
  const { state } = setUp(1, 1);
  const words = state.channel(0);
  words.deliver(7);
  words.requestSync();
  expect([words.work.tryTake(), words.work.tryTake(), words.work.tryTake()]).toEqual([
    true,
    true,
    false,
  ]);
  expect(words.jobPending).toBe(true);
  expect(words.collect(1)).toBe(7);
  expect(words.jobPending).toBe(false);
  expect(words.takeSync()).toBe("sync");
  expect(words.takeSync()).toBe("none");
  words.requestEnd();
  expect(words.takeSync()).toBe("end");
});

test("SendState hands every job of several clients to exactly one of several channels", async () => {
  const channels = 3;
  const clients = 2;
  const jobsEach = 1000;
  const { control, state } = setUp(channels, clients);
  const arrived = new Int32Array(new SharedArrayBuffer(clients * jobsEach * 4));
  const owners = new Int32Array(new SharedArrayBuffer(state.slots.length * 4));
  const thread = (role: MailboxJob["role"], number: number): TestThread =>
    new TestThread("mailbox_thread", {
      role,
      number,
      state: state.handle,
      control: control.buffer,
      arrived: arrived.buffer,
      owners: owners.buffer,
      first: number * jobsEach,
      end: (number + 1) * jobsEach,
    });
  const channelThreads = [0, 1, 2].map((number) => thread("channel", number));
  const clientThreads = [0, 1].map((number) => thread("client", number));
  try {
    const sent = await Promise.all(clientThreads.map((one) => one.result()));
    expect(sent).toEqual([jobsEach, jobsEach]);
    await until("all jobs have arrived", () => arrived.every((times) => times > 0));
    // A sync goes to every channel, behind its jobs.
    for (let channel = 0; channel < channels; channel++) {
      state.channel(channel).requestSync();
    }
    for (let channel = 0; channel < channels; channel++) {
      await until("the sync is done", () => state.channel(channel).syncDone.tryTake());
    }
    control.finish();
    state.wakeChannels();
    const violations = await Promise.all(channelThreads.map((one) => one.result()));
    expect(violations).toEqual([0, 0, 0]);
    expect(arrived.filter((times) => times !== 1)).toHaveLength(0);
    expect(owners.every((owner) => owner === 0)).toBe(true);
  } finally {
    const all = [...channelThreads, ...clientThreads];
    await Promise.all(all.map((one) => one[Symbol.asyncDispose]()));
  }
});

test("RamClient.flush() on a thread ends when the session fails while no channel is idle", async () => {
  const { control, state } = setUp(1, 1);
  await using client = new TestThread("mailbox_thread", {
    role: "client",
    number: 0,
    state: state.handle,
    control: control.buffer,
    arrived: new SharedArrayBuffer(8),
    owners: new SharedArrayBuffer(64),
    first: 0,
    end: 1,
  } satisfies MailboxJob);
  const ready = new Int32Array(state.handle.words);
  await until("the client sleeps", () => Atomics.load(ready, 1) === 1);
  control.fail(new MultifdError("ERR_MULTIFD_TEST", "the first failure"));
  await expect(client.result()).rejects.toThrow("the first failure");
});
