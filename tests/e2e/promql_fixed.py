"""Questions that test_differential.py always asks: one for each thing of the language that 2.42 knows, on the data of promql_data.py.

The logarithm of a number so small that it has lost digits is asked of neither: Go's is off by 35 there."""

QUERIES = [line for line in r"""
up
requests_total{job="api",path="/"}
requests_total{job!="api",code=~"5.."}
requests_total{job=~"a.*",path!~"/l.+"}
{__name__=~"memory_bytes|load1"}
{job="api",__name__!~".*_.*"}
memory_bytes offset 5m
memory_bytes offset -2m
memory_bytes @ 1700002007
memory_bytes @ 1700002007 offset 1m
memory_bytes @ start()
memory_bytes @ end() offset 30s
rate(requests_total[5m] @ end())
sum_over_time(memory_bytes[5m] @ 1700003007 offset 2m)
sum(requests_total)
sum by (job) (requests_total)
sum by (job, path) (rate(requests_total[5m]))
sum without (instance, code) (rate(requests_total[1m]))
avg by (zone) (memory_bytes)
min without () (memory_bytes)
max(temperature)
count by (sensor) (temperature > 100.70001)
count(up == 1)
group by (job) (up)
stddev by (job) (temperature)
stdvar(memory_bytes)
quantile by (job) (0.9, temperature)
quantile(0.5, load1)
quantile(-1, load1)
quantile(2, load1)
count_values("value", up)
count_values by (job) ("v", up)
topk(3, temperature)
bottomk by (job) (1, memory_bytes)
topk(0, up)
topk(1 + 1, memory_bytes)
topk(scalar(count(up)) - 4, memory_bytes)
rate(requests_total[5m])
rate(requests_total[47s])
increase(requests_total[10m])
irate(requests_total[1m])
rate(flaky_total[2m])
increase(flaky_total[5m])
delta(flaky_total[2m])
irate(flaky_total[2m])
rate(flaky_total[30s])
delta(memory_bytes[5m])
idelta(memory_bytes[1m])
deriv(temperature[5m])
deriv(up[5m])
predict_linear(temperature[10m], 3600)
double_exponential_smoothing(temperature[10m], 0.5, 0.3)
resets(requests_total[1h])
changes(up[30m])
sum_over_time(temperature[5m])
avg_over_time(temperature[5m])
min_over_time(temperature[5m])
max_over_time(temperature[5m])
count_over_time(gappy[10m])
last_over_time(gappy[10m])
present_over_time(gappy[1m])
stddev_over_time(temperature[5m])
stdvar_over_time(temperature[5m])
quantile_over_time(0.25, temperature[5m])
absent(up)
absent(no_such_metric{a="b",c=~"d"})
absent(no_such_metric{a=~"x",a="b"})
absent(no_such_metric{a="b",a=~"x"})
absent(no_such_metric{a="b",a="b"})
absent(no_such_metric{a="b",a!="c",a="d",b="e"})
absent_over_time(no_such_metric{a="b"}[5m])
absent(sum(no_such_metric))
gappy
gappy offset 1m
histogram_quantile(0.9, latency_seconds_bucket)
histogram_quantile(0.5, sum by (le) (rate(latency_seconds_bucket[5m])))
histogram_quantile(0.99, sum by (job, le) (rate(latency_seconds_bucket[1m])))
histogram_quantile(1.5, latency_seconds_bucket)
histogram_quantile(0.5, up)
rate(latency_seconds_sum[5m]) / rate(latency_seconds_count[5m])
sum by (job) (rate(requests_total{code="500"}[5m])) / sum by (job) (rate(requests_total[5m])) * 100
memory_bytes / ignoring (zone) load1
memory_bytes * on (job, instance) group_left load1
up * on (job, instance) group_right memory_bytes
temperature * on (job, instance) group_left (version) build_info
memory_bytes > 200.30001
memory_bytes > bool 200.30001
memory_bytes > other_bytes
memory_bytes <= bool other_bytes
sum by (job) (memory_bytes) == sum by (job) (memory_bytes)
sum by (job) (memory_bytes) != sum by (job) (memory_bytes)
100.5 < memory_bytes
1 + 2 * 3 ^ 2 % 4
2 ^ 3 ^ 2
-2 ^ 2
-memory_bytes
+memory_bytes
memory_bytes % 7
7 % memory_bytes
memory_bytes ^ 2
2 ^ load1
(memory_bytes + 0) atan2 other_bytes
up and on (job) sum by (job) (memory_bytes) > 100.1
up or memory_bytes
up unless on (instance) up{job="api"}
memory_bytes and other_bytes
memory_bytes or on (job) load1
up == 1 or up == 0
max_over_time(rate(requests_total[1m])[10m:30s])
avg_over_time(sum by (job) (temperature)[5m:])
sum_over_time(up[10m:1m])
min_over_time(max_over_time(temperature[1m])[5m:10s] offset 1m)
max_over_time(deriv(temperature[2m])[5m:1m] @ 1700003007)
rate(sum by (job) (requests_total)[5m:10s])
avg_over_time(avg_over_time(temperature[1m:20s] offset 7s)[5m:1m])
label_replace(up, "host", "$1", "instance", "(.*):.*")
label_replace(up, "job", "", "job", ".*api.*") and on () vector(1)
label_replace(up{job="api"}, "__name__", "renamed", "job", "(.*)")
label_join(up, "all", "/", "job", "instance")
abs(temperature - 200)
ceil(temperature)
floor(temperature)
round(temperature)
round(temperature, 0.5)
round(temperature, 10)
clamp(temperature, 100, 200)
clamp(temperature, 200, 100)
clamp_min(temperature, 300.5)
clamp_max(temperature, 300.5)
sgn(temperature - 250)
sqrt(temperature)
exp(temperature / 1000)
ln(temperature)
log2(temperature)
log10(temperature)
sin(temperature)
cos(temperature)
tan(up)
asin(up)
acos(up)
atan(temperature)
sinh(up)
cosh(up)
tanh(up)
asinh(temperature)
acosh(temperature)
atanh(up / 2)
deg(up)
rad(temperature)
pi()
time()
timestamp(up)
timestamp(up offset 1m)
timestamp(vector(1))
time() - timestamp(gappy)
vector(1)
vector(time())
scalar(sum(up))
scalar(up)
minute(clock_seconds)
hour(clock_seconds)
day_of_week(clock_seconds)
day_of_month(clock_seconds)
day_of_year(clock_seconds)
days_in_month(clock_seconds)
month(clock_seconds)
year(clock_seconds)
hour()
minute(vector(1136239445))
year(vector(-1))
special
special > 0
special + 0
special * 0
abs(special)
sgn(special)
sqrt(special)
special == special
special != special
sum(special)
min(special)
max(special)
count(special)
min_over_time(special[5m])
max_over_time(special[5m])
count_over_time(special[5m])
last_over_time(special[5m])
changes(special[5m])
clamp(special, 0, 10)
clamp(special, -0, 0)
clamp(special, 0, -0)
clamp(special, Inf, Inf)
clamp(special, NaN, 5)
clamp(special, -5, NaN)
clamp_min(special, 0)
clamp_min(special, -0)
clamp_min(special, Inf)
clamp_min(special, NaN)
clamp_max(special, 0)
clamp_max(special, -0)
clamp_max(special, -Inf)
clamp_max(special, NaN)
-special
special % 3
-5 % special
special ^ 2
special / 0
-special / 0
0 / special
floor(special)
ceil(special)
floor(-special)
ceil(special - 0.5)
round(special, -0.1)
round(-special)
deg(special)
rad(special)
exp(special)
ln(special{case!="tiny"})
log2(special)
log10(-special)
sin(special)
atan(special)
(special + 0) atan2 0
(special + 0) atan2 -0
0 atan2 (special + 0)
avg(special)
stddev(special)
stdvar(special)
quantile(0.5, special)
quantile(NaN, special)
topk(3, special)
bottomk(3, special)
sum_over_time(special[5m])
avg_over_time(special[5m])
quantile_over_time(0.5, special[5m])
stddev_over_time(special[5m])
delta(special[5m])
idelta(special[5m])
rate(special[5m])
irate(special[5m])
resets(special[5m])
deriv(special[5m])
predict_linear(special[5m], 60)
minute(special)
hour(special)
day_of_week(special)
day_of_month(special)
day_of_year(special)
month(special)
year(special)
year(special{case="third"} * 1e16)
year(special{case="third"} * -2.7e19)
day_of_week(special{case="third"} * 1e18)
day_of_year(special{case="third"} * -3e18)
days_in_month(special{case="third"} * -5.00e17)
days_in_month(special)
special > bool 0
special <= bool special
round(special)
count_values("v", special)
1 / 0
-1 / 0
0 / 0
1e-7
1e21
123456789012345678
0x1f
.5
5.
1e3
Inf
-Inf
NaN
1 == bool 1
1 > bool 2
vector(1e-7)
vector(1e21)
vector(0.1) + 0.2
vector(123456789.125)
sum by (nothing) (up)
sum(no_such_metric)
no_such_metric + up
rate(no_such_metric[5m])
up{job="none"}
sum(
up +
rate(up)
abs(up[5m])
up{
up{job=}
1 == 1
up offset
up[5m] offset 1m offset 2m
{}
up[5m:
no_function(up)
sum by (job (up)
topk(up, up)
memory_bytes * on (job) memory_bytes
temperature + on (job) group_left memory_bytes
label_replace(temperature, "sensor", "same", "sensor", ".*")
label_replace(up, "a", "b", "job", "(")
abs({__name__=~"memory_bytes|other_bytes"})
rate({__name__=~"memory_bytes|other_bytes"}[5m])
double_exponential_smoothing(up[5m], 1.5, 0.5)
topk(NaN, up)
""".split("\n") if line]

# Their answers have an order.
ORDERED = [line for line in """
sort(memory_bytes)
sort_desc(memory_bytes)
sort(temperature)
sort_desc(temperature > 200.1)
topk(5, temperature)
bottomk(5, temperature)
sort(topk(3, memory_bytes))
topk(2, memory_bytes{job="api"})
""".split("\n") if line]

# Only as instant queries: range vectors and strings.
INSTANT = [line for line in r"""
up[1m]
memory_bytes{job="api"}[2m] offset 1m
special[3m]
gappy[15m]
gappy[15m] @ 1700003007
requests_total[5m:30s]
rate(requests_total[1m])[5m:1m]
sum by (job) (up)[3m:10s]
"a string"
'it\'s'
`raw \n`
"\u00e4 <&> \t \\ "
""".split("\n") if line]
