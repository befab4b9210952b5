/**
 * The device state of a guest as it goes into a package.
 *
 * @module
 */
import { StreamError } from "../errors.ts";
import type { GuestState } from "../wire/opaque_state.ts";
import { looksComplete } from "../wire/opaque_state.ts";
import { findDescription } from "../wire/vm_description.ts";
import { DeviceSections } from "./device_sections.ts";

/**
 * Sections of all devices, without the end of the stream behind them.
 *
 * @throws {StreamError} when they are not complete: the guest could not run with them.
 */
export function packagedSections({ devices }: GuestState): Uint8Array {
  if (!looksComplete(devices)) {
    throw new StreamError(
      "ERR_MULTIFD_STREAM_SECTION",
      "Cannot restore: the device state in the file has no end, it must be complete",
    );
  }
  const description = findDescription(devices);
  const sections = devices.subarray(0, description?.endMarkAt ?? devices.byteLength - 1);
  new DeviceSections(description?.json).read(sections, 0);
  return sections;
}
