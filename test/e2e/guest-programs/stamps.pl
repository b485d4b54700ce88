# Writes numbered blocks and syncs them, and tells the third serial port which are stable. In a guest:
#   perl stamps.pl DEVICE WORKERS BLOCKS STOP_FILE
# Each worker owns BLOCKS blocks and overwrites them again and again, each time with the next number. Before it does, it
# reads the block from the device and expects the last number: a write that was lost, or done again after a later one,
# shows. It has no modules there, not even strict. Marks: "+WORKER.BLOCK.NUMBER" is stable, "!..." is an error,
# "=WORKER.COUNT" is the end of a worker.

my ($device, $workers, $blocks, $stop) = @ARGV;
my $BLOCK_BYTES = 4096;
my ($SYS_FDATASYNC, $SYS_FADVISE64, $POSIX_FADV_DONTNEED) = (75, 221, 4);

sub stamp {
    my ($block, $number) = @_;
    return pack('VV', $block, $number) x ($BLOCK_BYTES / 8);
}

sub work {
    my ($worker) = @_;
    open(my $disk, '+<:raw', $device) or die "open: $!";
    open(my $marks, '>:raw', '/dev/ttyS2') or die "marks: $!";
    my $mark = sub { syswrite($marks, "$_[0]\n") };
    my $check = sub {
        my ($block, $number) = @_;
        my $at = $block * $BLOCK_BYTES;
        # Out of the page cache: the device is asked.
        syscall($SYS_FADVISE64, fileno($disk), $at, $BLOCK_BYTES, $POSIX_FADV_DONTNEED);
        my $bytes = '';
        sysseek($disk, $at, 0);
        my $got = sysread($disk, $bytes, $BLOCK_BYTES);
        if (!defined $got) { $mark->("!read $block: $!") }
        elsif ($number > 0 && $bytes ne stamp($block, $number)) {
            my ($b, $n) = unpack('VV', $bytes);
            $mark->("!block $block has $b.$n and not $number");
        }
    };
    my @number = (0) x $blocks;
    my $count = 0;
    while (!-e $stop) {
        my $own = $count % $blocks;
        my $block = $worker * $blocks + $own;
        $check->($block, $number[$own]);
        $number[$own] += 1;
        sysseek($disk, $block * $BLOCK_BYTES, 0);
        my $wrote = syswrite($disk, stamp($block, $number[$own]));
        if (!defined $wrote) { $mark->("!write $block: $!") }
        elsif (syscall($SYS_FDATASYNC, fileno($disk)) != 0) { $mark->("!sync $block: $!") }
        else { $mark->("+$worker.$block.$number[$own]") }
        $count += 1;
    }
    $check->($worker * $blocks + $_, $number[$_]) for 0 .. $blocks - 1;
    $mark->("=$worker.$count");
}

for my $worker (0 .. $workers - 1) {
    next if fork();
    work($worker);
    exit 0;
}
1 while wait() > 0;
