-- Undoes the statement that calls it: OTP01 if it comes too late, OTP02 if others were quicker. What it says shows in
-- the server's log, and so nothing of the request is in it.
CREATE FUNCTION give_up(reason text) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $give_up$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = reason,
    MESSAGE = CASE reason WHEN 'OTP01' THEN 'too late' ELSE 'overtaken by another request' END;
END
$give_up$
