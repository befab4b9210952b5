/**
 * What the threads that save and load devices are given.
 *
 * @module
 */
import type { DeviceClientHandle } from "../engine/device_client.ts";
import type { LoadConfig, SaveConfig } from "./device.ts";

/** Role of the threads that save devices. */
export const SAVE_ROLE = "save";

/** Role of the threads that load devices. */
export const LOAD_ROLE = "load";

/** Saving one device. */
export interface SaveTask {
  readonly device: SaveConfig;
  readonly client: DeviceClientHandle;
}

/** Loading one device. */
export interface LoadTask {
  readonly device: LoadConfig;
  readonly control: SharedArrayBuffer;
}
