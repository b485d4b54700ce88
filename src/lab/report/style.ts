/** The report's whole style. Colours follow the reader's own choice of light or dark. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --ground: light-dark(#fbfbf9, #16181c);
  --panel: light-dark(#fff, #1e2127);
  --ink: light-dark(#1d2126, #e6e6e3);
  --soft: light-dark(#5c6670, #a0a8b0);
  --rule: light-dark(#dcdfe2, #363b43);
  --write: light-dark(#5b87b5, #6c9bcb);
  --zeroes: light-dark(#b9c3cc, #4b545e);
  --flush: light-dark(#2e8b57, #58b783);
  --lost: light-dark(#c62b38, #ff6b6b);
  --kept: light-dark(#c98600, #f2b84b);
  --fua: light-dark(#7a4fb5, #b692ea);
  --some: light-dark(#e5c355, #b5962e);
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 80px; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0.4em 0; }
h2 { font-size: 1.25rem; margin: 2.4em 0 0.5em; border-top: 1px solid var(--rule); padding-top: 1em; }
h3 { font-size: 1rem; margin: 1.6em 0 0.4em; }
p { max-width: 75ch; }
a { color: inherit; }
.soft { color: var(--soft); }
.verdict { border-left: 6px solid var(--flush); padding: 2px 0 2px 16px; }
.verdict.bad { border-color: var(--lost); }
.verdict.partial { border-color: var(--write); }
.warning { border: 1px solid var(--some); border-left-width: 6px; border-radius: 4px; padding: 6px 12px; }
.verdict.doubt { border-color: var(--some); }
.cause {
  background: var(--panel); border: 1px solid var(--rule); border-radius: 8px;
  padding: 4px 20px 16px; margin: 20px 0;
}
.sentence { font-size: 1.1rem; font-weight: 600; }
.tag {
  display: inline-block; border: 1px solid var(--rule); border-radius: 4px; padding: 0 7px;
  margin-right: 6px; font-size: 0.85rem;
}
.tag.bad { border-color: var(--lost); color: var(--lost); }
code, pre { font: 0.86rem/1.45 ui-monospace, monospace; }
code.command, pre {
  display: block; background: var(--ground); border: 1px solid var(--rule);
  border-radius: 4px; padding: 6px 10px; margin: 6px 0; overflow-x: auto; white-space: pre;
}
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 3px 14px 3px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 0.6em 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; }
svg.map { min-width: 720px; }
svg.strip { height: 26px; }
svg .frame { fill: var(--panel); stroke: var(--rule); }
svg .axis { stroke: var(--rule); stroke-width: 2; }
svg .label { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg .epoch { fill: var(--rule); opacity: 0.35; }
svg .gap { stroke: var(--rule); stroke-dasharray: 2 3; }
svg .write { fill: var(--write); }
svg .zeroes { fill: var(--zeroes); }
svg .fua { stroke: var(--fua); stroke-width: 1.5; }
svg .flush { fill: var(--flush); opacity: 0.35; }
svg .flush.bad { fill: var(--lost); }
svg .lost { fill: var(--lost); stroke: var(--lost); stroke-width: 2; }
svg .kept { fill: var(--kept); stroke: var(--kept); stroke-width: 2; }
svg .cut { stroke: var(--lost); stroke-width: 2; stroke-dasharray: 5 4; }
svg .cut-label { fill: var(--lost); }
svg .ack { fill: var(--ink); }
svg .ack.broken { fill: var(--lost); stroke: var(--ink); }
svg .note { stroke: var(--soft); stroke-width: 2; }
svg .after { opacity: 0.3; }
svg .exact { fill: var(--flush); }
svg .pairs { fill: var(--write); }
svg .sampled { fill: var(--some); }
svg .nothing, svg .left-out { fill: var(--zeroes); }
.legend span { margin-right: 16px; white-space: nowrap; }
.legend span.long { white-space: normal; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 5px; }
.hex td { padding: 0 10px 0 0; border: 0; font: 0.82rem/1.4 ui-monospace, monospace; white-space: pre; }
.hex .differs { color: var(--lost); font-weight: 700; }
.version {
  display: inline-block; border: 1px solid var(--rule); border-radius: 4px; padding: 1px 8px;
  margin: 2px; font-size: 0.85rem;
}
.version.chosen { border: 2px solid var(--kept); }
.version.missed { border: 2px solid var(--lost); }
.bar { background: var(--write); height: 12px; border-radius: 2px; min-width: 2px; }
.bar.fail { background: var(--lost); }
details { margin: 0.5em 0; }
summary { cursor: pointer; }
`;
