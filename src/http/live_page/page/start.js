
// ---------------------------------------------------------------- the start

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawChart);
addEventListener('resize', drawChart);
$('view').hidden = true;
showNotice();
drawChart();
connect();
