// Only what old versions of Node can parse and run: the line below must reach their users.
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 18)) {
  process.stderr.write(
    `holdfast: Node ${process.versions.node} is too old: version 22.18 or newer is needed\n`,
  );
  process.exit(2);
}
// Node's pool of four threads serves the portable reactor's files: a few slow fdatasyncs would hold up every read.
process.env['UV_THREADPOOL_SIZE'] ??= '16';
