/**
 * Rehearses save and load threads until the JIT has compiled their path, while they wait for the
 * completion phase: everything stands still then, the worst moment for code to be young. A device of
 * scratch memory is saved and loaded; whoever is at the other end of a thread is played whenever the
 * device looks whether it is to end, which it does between any two buffers.
 *
 * @module
 */
import { DeviceClient } from "../engine/device_client.ts";
import { createDeviceQueue, DeviceQueue } from "../engine/device_queue.ts";
import { DeviceSendState } from "../engine/device_send_state.ts";
import { DeviceTable, type DeviceIdentity } from "../engine/device_table.ts";
import { SendState } from "../engine/send_state.ts";
import { TIMEOUTS_DEFAULT } from "../limits.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { TaskContext } from "../thread/task_pool.ts";
import type { MemoryState } from "./device.ts";
import { LoadContext } from "./load_context.ts";
import { loadMemory, saveMemory } from "./memory_device.ts";
import { SaveContext } from "./save_context.ts";

/** Buffers to rehearse with; what runs once per buffer is soon compiled as far as it pays. */
const BUFFERS = 300;
const BUFFER_BYTES = 64;

const DEVICE: DeviceIdentity = { idstr: "rehearsal", instanceId: 0, format: "vfio" };

/** Nobody stops a rehearsal; it ends by itself. */
const control = new SessionControl();

/** Rehearses a save thread. Ends early when `task` is aborted. */
export function rehearseSave(task: TaskContext): void {
  const state = SendState.create({ channels: 1, clients: 2, pageSize: 4096 }, control);
  const buffers = DeviceSendState.create(state, control);
  const devices = new DeviceTable();
  devices.add(DEVICE);
  const client = new DeviceClient({
    state: state.handle,
    device: buffers.handle,
    devices: devices.buffer,
    control: control.buffer,
    limitMs: TIMEOUTS_DEFAULT.stallMs,
  });
  const channel = state.channel(0);
  let workingSlot = state.workingSlot(0);
  state.channelsReady.post();
  const playChannel = (): void => {
    if (!channel.work.tryTake()) return;
    workingSlot = channel.collect(workingSlot);
    state.channelsReady.post();
  };
  saveMemory(new SaveContext(DEVICE, client, playedTask(task, playChannel)), scratchMemory());
}

/** Rehearses a load thread. Ends early when `task` is aborted. */
export function rehearseLoad(task: TaskContext): void {
  const memory = scratchMemory();
  const limits = { queuedBytesMax: BUFFER_BYTES, queuedBuffersMax: 2 };
  const queue = new DeviceQueue(createDeviceQueue({ ...DEVICE, ...limits }, memory), control);
  let arrived = 0;
  const playChannel = (): void => {
    const config = arrived === BUFFERS;
    const idx = queue.reserve(arrived++, config, config ? 0 : BUFFER_BYTES);
    queue.addressOf(idx);
    queue.commit(idx);
  };
  loadMemory(new LoadContext(queue, playedTask(task, playChannel), false), memory);
}

function scratchMemory(): MemoryState {
  const byteLength = BUFFERS * BUFFER_BYTES;
  const buffer = new SharedArrayBuffer(byteLength);
  return { builtin: "memory", buffer, byteOffset: 0, byteLength, chunkBytes: BUFFER_BYTES };
}

/** The task itself, but that looking at it also lets the other end take its turn. */
function playedTask(task: TaskContext, play: () => void): TaskContext {
  return {
    signal: task.signal,
    get aborted() {
      return task.aborted;
    },
    throwIfAborted() {
      task.throwIfAborted();
      play();
    },
  };
}
