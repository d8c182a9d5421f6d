# The report of ted.sh, from two files: "RATE CARRIED" and "ROUND RATE VARIANT MS LOSS MB". Exits 1 when
# losses differ by more than they may, or where communication takes 40 to 60 % of the first variant's
# step and both savings together do not make it 1.26 times as fast.

function median(text, v, n, i, j, x) {
    n = split(text, v, " ")
    for (i = 2; i <= n; i++) {
        x = v[i] + 0
        for (j = i - 1; j >= 1 && v[j] + 0 > x; j--) v[j + 1] = v[j]
        v[j + 1] = x
    }
    return n ? (v[int((n + 1) / 2)] + v[int(n / 2) + 1]) / 2 : 0
}

# Medians over the rounds.
function time(rate, variant, i, text) {
    for (i = 1; i <= rounds; i++) text = text " " ms[i, rate, variant]
    return median(text)
}
function faster(rate, variant, i, text) {
    for (i = 1; i <= rounds; i++) text = text " " ms[i, rate, "neither"] / ms[i, rate, variant]
    return median(text)
}
function share(rate, variant, i, text) {
    for (i = 1; i <= rounds; i++)
        text = text " " 1 - ms[i, "unlimited", variant] / ms[i, rate, variant]
    return median(text)
}

function row(text, cells, i, n, line) {
    n = split(text, cells, "|")
    if (format == "markdown") {
        gsub(/\|/, " | ", text)
        print "| " text " |"
        return
    }
    for (i = 1; i <= n; i++) line = line sprintf(i == 1 ? "%-10s" : "  %12s", cells[i])
    print line
}

FNR == NR { rate[++rates] = $1; carried[$1] = $2; next }
{
    rounds = $1
    ms[$1, $2, $3] = $4
    sent[$3] = sent[$3] " " $6
    count = ++losses[$3]
    if (count == 1) loss[$3] = $5
    if (loss[$3] != $5) unsteady = unsteady " " $3
}

END {
    n = split("DTD CAC both fusions overlap", savings, " ")
    head = "links|carry Mbit/s|neither ms|share"
    rule = "---|---|---|---"
    for (i = 1; i <= n; i++) { head = head "|" savings[i]; rule = rule "|---" }
    row(head "|share, both")
    if (format == "markdown") row(rule "|---")
    for (r = 1; r <= rates; r++) {
        at = rate[r]
        line = sprintf("%s|%.0f|%.0f|%.0f %%", at, carried[at], time(at, "neither"),
            100 * share(at, "neither"))
        for (i = 1; i <= n; i++) line = line sprintf("|%.2f", faster(at, savings[i]))
        row(line sprintf("|%.0f %%", 100 * share(at, "both")))
        if (faster(at, "both") < 1.02) unpaid = unpaid (unpaid ? ", " : "") at
        here = share(at, "neither")
        if (here >= 0.4 && here <= 0.6) {
            judged++
            verdict = verdict sprintf("at %s communication takes %.0f %% of a step; with both a " \
                "step is %.2f times as fast (the paper: 1.26)\n", at, 100 * here, faster(at, "both"))
            if (faster(at, "both") < 1.26) failed = 1
        }
    }
    line = sprintf("MB sent||%.1f|", median(sent["neither"]))
    for (i = 1; i <= n; i++) line = line sprintf("|%.1f", median(sent[savings[i]]))
    row(line "|")
    print ""
    printf "%s", verdict
    if (!judged) print "at no rate does communication take 40 to 60 % of a step"
    print "does not pay (less than 1.02 times as fast): " (unpaid ? unpaid : "at none of these rates")
    if (unsteady) { print "losses differ from run to run:" unsteady; failed = 1 }
    if (loss["CAC"] != loss["neither"] || loss["both"] != loss["DTD"] ||
        loss["overlap"] != loss["fusions"]) {
        print "losses differ where only the order of messages may"
        failed = 1
    }
    for (v in loss) {
        gap = loss[v] / loss["neither"] - 1
        if (gap < 0) gap = -gap
        if (gap > worst) worst = gap
    }
    printf "losses after %d runs: %.6f, relative gaps up to %.1e between variants; bits equal " \
        "with and without CAC\n", NR - rates, loss["neither"], worst
    if (worst > 1e-6) { print "losses differ by more than rounding"; failed = 1 }
    exit failed || (!judged && !quick)
}
