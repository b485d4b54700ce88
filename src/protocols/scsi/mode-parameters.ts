/** The mode parameters that are kept here; WCE is the disk's (Disk.setWriteCache). Current values, changed by MODE SELECT. */
export class ModeParameters {
  /** D_SENSE of the Control mode page [SPC-4 7.5.8]: sense data in descriptor format. */
  descriptorSense = false;
  /** SWP of the Control mode page: software write protect. */
  softwareWriteProtect = false;

  /** Back to the default values: a reset. */
  reset(): void {
    this.descriptorSense = false;
    this.softwareWriteProtect = false;
  }
}
