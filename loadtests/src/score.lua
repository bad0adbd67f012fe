-- The small request of the cost scenario: a key, and 47 bytes of JSON.
wrk.method = "POST"
wrk.body = '{"data":[[5.1,3.5,1.4,0.2]],"method":"predict"}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer KEY"
