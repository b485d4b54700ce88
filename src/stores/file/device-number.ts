/** "major:minor" of a st_dev or st_rdev, as sysfs and mountinfo write it [makedev(3), Linux's 64-bit encoding]. */
export function deviceNumber(dev: number | bigint): string {
  const bits = BigInt(dev);
  const major = ((bits >> 8n) & 0xfffn) | ((bits >> 32n) & ~0xfffn);
  const minor = (bits & 0xffn) | ((bits >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}
