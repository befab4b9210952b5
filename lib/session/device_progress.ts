/**
 * How far the devices of a session are, for its caller.
 *
 * @module
 */
import type { DeviceProgress } from "../device/device.ts";
import type { DeviceClientHandle } from "../engine/device_client.ts";
import type { DeviceQueue } from "../engine/device_queue.ts";
import { DeviceTable } from "../engine/device_table.ts";

/** What has been queued of each device; nothing before one is registered. */
export function queuedProgress(client: DeviceClientHandle | undefined): DeviceProgress[] {
  if (client === undefined) return [];
  return new DeviceTable(client.devices).devices.map(({ idstr, instanceId, buffers, bytes }) => ({
    idstr,
    instanceId,
    buffers: buffers.value,
    bytes: bytes.value,
  }));
}

/** What has been loaded of each device. */
export function loadedProgress(queues: readonly DeviceQueue[]): DeviceProgress[] {
  return queues.map(({ handle: { idstr, instanceId }, loaded }) => ({
    idstr,
    instanceId,
    ...loaded,
  }));
}

/** @throws {RangeError} before a device is registered. */
export function requireClient(client: DeviceClientHandle | undefined): DeviceClientHandle {
  if (client !== undefined) return client;
  throw new RangeError("Cannot make a client for device state: no device is registered");
}
