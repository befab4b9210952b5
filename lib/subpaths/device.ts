/**
 * State of devices: what is not RAM and goes over the same channels, from many threads at once.
 *
 * @example
 * ```ts
 * import { connect, listen, RamBlock } from "multifd";
 * import { memoryDevice } from "multifd/device";
 *
 * const weights = new SharedArrayBuffer(1024 * 1024);
 * const copy = new SharedArrayBuffer(weights.byteLength);
 * new Uint8Array(weights).fill(1);
 * await using receiver = await listen({
 *   endpoint: "127.0.0.1:0",
 *   devices: [memoryDevice({ idstr: "model/weights", buffer: copy })],
 * });
 * const block = RamBlock.allocate("heap", 1024 * 1024);
 * await using sender = await connect({ endpoint: receiver.endpoint, blocks: [block] });
 * await sender.registerDevice(memoryDevice({ idstr: "model/weights", buffer: weights }));
 * await sender.send();
 * await Promise.all([sender.complete(), receiver.complete()]);
 * console.log(new Uint8Array(copy)[500_000]); // 1
 * ```
 *
 * @module
 */
export {
  DeviceClient,
  type DeviceClientHandle,
  type PreparedBuffer,
} from "../engine/device_client.ts";
export type { DeviceFormat, DeviceIdentity } from "../engine/device_table.ts";
export type {
  DeviceCode,
  DeviceDefinition,
  DeviceProgress,
  DescriptorState,
  MemoryState,
} from "../device/device.ts";
export { descriptorDevice, type DescriptorDeviceOptions } from "../device/descriptor_device.ts";
export { memoryDevice, type MemoryDeviceOptions } from "../device/memory_device.ts";
export type { SaveDevice } from "../device/save_context.ts";
export type { LoadDevice, LoadedBuffer } from "../device/load_context.ts";
export type { TaskContext } from "../thread/task_pool.ts";
export type { WorkerFunction } from "../thread/worker_function.ts";
